// MQTT 3.1.1 clients over raw WebSocket frames, many in one thread on epoll. Knows the bytes of both protocols, opens
// connections and subscribes; what is published and what came is the business of whoever derives from `Clients`.
//
// Frames are masked with the key 0, which leaves the bytes as they are. Frames that come may hold many packets, and packets
// may span frames.

#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using std::string;
using Nanos = int64_t;

constexpr Nanos SECOND = 1'000'000'000;
/// Handshakes under way at a time: enough to keep a broker busy, below every listen backlog.
constexpr int HANDSHAKES = 64;
/// Without any progress for so long, a run has failed.
constexpr Nanos STALL = 5 * SECOND;

constexpr uint8_t CONNACK = 0x20, PUBLISH = 0x30, PUBACK = 0x40, PUBREC = 0x50, PUBREL = 0x62, PUBCOMP = 0x70, SUBACK = 0x90;

struct Failure : std::runtime_error {
	using std::runtime_error::runtime_error;
};

Nanos clockOf(clockid_t id) {
	timespec ts{};
	clock_gettime(id, &ts);
	return ts.tv_sec * SECOND + ts.tv_nsec;
}

Nanos now() { return clockOf(CLOCK_MONOTONIC); }

void putShort(string& to, size_t value) {
	to += char(value >> 8);
	to += char(value);
}

void putText(string& to, const string& text) {
	putShort(to, text.size());
	to += text;
}

string packet(uint8_t first, const string& body) {
	string whole(1, char(first));
	size_t left = body.size();
	do {
		whole += char((left & 127) | (left > 127 ? 128 : 0));
		left >>= 7;
	} while (left > 0);
	return whole + body;
}

string connectPacket(const string& clientId, bool cleanSession) {
	string body;
	putText(body, "MQTT");
	body += char(4);
	body += char(cleanSession ? 2 : 0);
	putShort(body, 0);
	putText(body, clientId);
	return packet(0x10, body);
}

string subscribePacket(const string& filter, int qos) {
	string body;
	putShort(body, 1);
	putText(body, filter);
	body += char(qos);
	return packet(0x82, body);
}

enum class Phase { connecting, upgrading, greeting, subscribing, ready };

struct Client {
	int fd = -1;
	Phase phase = Phase::connecting;
	string id, filter;
	/// Where the broker is.
	int port = 0;
	// Outgoing: frames from `written` on are not with the kernel yet; `packed` waits to become one frame.
	string out, packed;
	size_t written = 0;
	bool wantsWrite = false, dirty = false;
	// Incoming: the head of a frame as far as it is here, what is left of the frame, and a packet that is not whole.
	uint8_t head[10];
	size_t headSize = 0;
	uint64_t frameLeft = 0;
	uint8_t opcode = 0;
	string partial;

	// As a publisher.
	bool publishes = false;
	string packet;
	size_t idOffset = 0, payloadOffset = 0;
	uint32_t sent = 0, acknowledged = 0;
	int outstanding = 0;
	// As a subscriber: the next sequence number of each publisher.
	std::vector<uint32_t> expected;
};

/// What all clients have in common.
struct Settings {
	string path;
	int port, qos;
	/// Sessions outlive the connection; several packets may share a frame.
	bool persistent, pack;
};

class Clients {
public:
	explicit Clients(Settings given) : settings(std::move(given)), epoll(epoll_create1(0)), buffer(1 << 18) {}
	virtual ~Clients() = default;

protected:
	const Settings settings;
	/// Whether waiting must not take a millisecond too long.
	bool precise = false;
	uint64_t frames = 0, reads = 0;
	/// When something was read last.
	Nanos lastProgress = 0;

	virtual void onPublish(Client& client, const uint8_t* data, size_t size) = 0;
	/// A PUBACK or PUBCOMP for the packet id that begins here.
	virtual void onCompleted(Client& client, const uint8_t* id) = 0;
	/// The last chance to add something to a write.
	virtual void beforeWrite(Client& client) = 0;

	Client& addClient(const string& id, const string& filter) {
		clients.push_back(std::make_unique<Client>());
		Client& client = *clients.back();
		client.id = id;
		client.filter = filter;
		client.port = settings.port;
		return client;
	}

	/// Opens all clients that are not open yet, and returns when they are connected and subscribed.
	void openAll() {
		lastProgress = now();
		while (ready < clients.size()) {
			while (opened < clients.size() && opened - ready < HANDSHAKES) open(*clients[opened++]);
			const size_t readyBefore = ready;
			turn(SECOND / 10);
			flushDirty();
			if (ready > readyBefore) lastProgress = now();
			if (now() - lastProgress > STALL) {
				throw Failure(std::to_string(ready) + " of " + std::to_string(clients.size()) + " clients are connected, and no more come");
			}
		}
	}

	/// Waits for events, at most `longest`, and handles them.
	void turn(Nanos longest) {
		epoll_event events[512];
		const timespec wait{std::max<Nanos>(longest, 0) / SECOND, std::max<Nanos>(longest, 0) % SECOND};
		// epoll_wait counts in milliseconds, which is too coarse for a fixed rate.
		pollfd either{epoll, POLLIN, 0};
		if (precise) ppoll(&either, 1, &wait, nullptr);
		const int milliseconds = precise ? 0 : int(std::max<Nanos>(longest, 0) / 1'000'000) + 1;
		const int count = epoll_wait(epoll, events, 512, milliseconds);
		for (int i = 0; i < count; i++) {
			Client& client = *static_cast<Client*>(events[i].data.ptr);
			if (client.phase == Phase::connecting) upgrade(client);
			else if (events[i].events & EPOLLOUT) flush(client);
			if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) receive(client);
		}
	}

	void markDirty(Client& client) {
		if (client.dirty) return;
		client.dirty = true;
		dirty.push_back(&client);
	}

	/// Writes what each client has to say, in one call for each.
	void flushDirty() {
		for (Client* client : dirty) {
			beforeWrite(*client);
			client->dirty = false;
			if (!client->packed.empty()) {
				putFrame(client->out, 0x82, client->packed.data(), client->packed.size());
				client->packed.clear();
			}
			if (!client->wantsWrite) flush(*client);
		}
		dirty.clear();
	}

	void send(Client& client, const char* data, size_t size) {
		if (settings.pack) client.packed.append(data, size);
		else putFrame(client.out, 0x82, data, size);
		markDirty(client);
	}

	void sendAck(Client& client, uint8_t first, const uint8_t* id) {
		const char ack[4] = {char(first), 2, char(id[0]), char(id[1])};
		send(client, ack, sizeof ack);
	}

private:
	int epoll;
	std::vector<char> buffer;
	std::vector<std::unique_ptr<Client>> clients;
	std::vector<Client*> dirty;
	size_t opened = 0, ready = 0;

	void open(Client& client) {
		client.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (client.fd < 0) throw Failure(string("cannot open a socket: ") + strerror(errno) + "; raise the limit of open files");
		const int on = 1;
		setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		sockaddr_in address{};
		address.sin_family = AF_INET;
		address.sin_port = htons(uint16_t(client.port));
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		if (connect(client.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 && errno != EINPROGRESS) {
			throw Failure(string("cannot connect: ") + strerror(errno));
		}
		client.wantsWrite = true;
		watch(client, EPOLL_CTL_ADD);
	}

	void watch(Client& client, int operation) {
		epoll_event event{};
		event.events = EPOLLIN | (client.wantsWrite ? uint32_t(EPOLLOUT) : 0u);
		event.data.ptr = &client;
		epoll_ctl(epoll, operation, client.fd, &event);
	}

	void upgrade(Client& client) {
		int error = 0;
		socklen_t size = sizeof error;
		getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &size);
		if (error != 0) throw Failure(string("cannot connect: ") + strerror(error));
		client.phase = Phase::upgrading;
		client.out = "GET " + settings.path + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(client.port) +
					 "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
					 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
		flush(client);
	}

	void flush(Client& client) {
		while (client.written < client.out.size()) {
			const ssize_t size = ::send(client.fd, client.out.data() + client.written, client.out.size() - client.written, MSG_NOSIGNAL);
			if (size < 0 && errno == EAGAIN) break;
			if (size < 0) throw Failure("the broker cut the connection of " + client.id + ": " + strerror(errno));
			client.written += size_t(size);
		}
		const bool all = client.written == client.out.size();
		if (all) {
			client.out.clear();
			client.written = 0;
		}
		if (client.wantsWrite != !all) {
			client.wantsWrite = !all;
			watch(client, EPOLL_CTL_MOD);
		}
	}

	static void putFrame(string& to, uint8_t first, const char* data, size_t size) {
		char head[14] = {char(first)};
		size_t used = 2;
		if (size < 126) {
			head[1] = char(0x80 | size);
		} else if (size < 65536) {
			head[1] = char(0x80 | 126);
			head[used++] = char(size >> 8);
			head[used++] = char(size);
		} else {
			head[1] = char(0x80 | 127);
			for (int shift = 56; shift >= 0; shift -= 8) head[used++] = char(uint64_t(size) >> shift);
		}
		to.append(head, used + 4).append(data, size);
	}

	void receive(Client& client) {
		const ssize_t size = recv(client.fd, buffer.data(), buffer.size(), 0);
		if (size < 0 && errno == EAGAIN) return;
		if (size <= 0) throw Failure("the broker closed the connection of " + client.id);
		reads++;
		lastProgress = now();
		auto* data = reinterpret_cast<const uint8_t*>(buffer.data());
		size_t left = size_t(size);
		if (client.phase == Phase::upgrading) {
			client.partial.append(buffer.data(), left);
			const size_t end = client.partial.find("\r\n\r\n");
			if (end == string::npos) return;
			if (client.partial.compare(8, 5, " 101 ") != 0) throw Failure("the upgrade was refused: " + client.partial.substr(0, 15));
			left = client.partial.size() - end - 4;
			data += size_t(size) - left;
			client.partial.clear();
			client.phase = Phase::greeting;
			const string hello = connectPacket(client.id, !settings.persistent);
			send(client, hello.data(), hello.size());
		}
		while (left > 0) {
			const size_t used = client.frameLeft > 0 ? readFrame(client, data, left) : readHead(client, *data);
			data += used;
			left -= used;
		}
	}

	size_t readHead(Client& client, uint8_t byte) {
		client.head[client.headSize++] = byte;
		if (client.headSize < 2) return 1;
		const uint8_t length = client.head[1] & 127;
		const size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0;
		if (client.headSize < 2 + extended) return 1;
		client.frameLeft = extended == 0 ? length : 0;
		for (size_t i = 0; i < extended; i++) client.frameLeft = client.frameLeft << 8 | client.head[2 + i];
		client.opcode = client.head[0] & 15;
		client.headSize = 0;
		frames++;
		if (client.opcode == 8) throw Failure("the broker closed the connection of " + client.id);
		if (client.opcode == 9) {
			putFrame(client.out, 0x8a, nullptr, 0);
			markDirty(client);
		}
		return 1;
	}

	size_t readFrame(Client& client, const uint8_t* data, size_t left) {
		const size_t size = size_t(std::min<uint64_t>(client.frameLeft, left));
		client.frameLeft -= size;
		if (client.opcode <= 2) readPackets(client, data, size);
		return size;
	}

	/// Size of the packet that begins here, or 0 while that cannot be told.
	static size_t packetSize(const uint8_t* data, size_t left) {
		size_t length = 0;
		for (size_t i = 1; i < left && i < 5; i++) {
			length |= size_t(data[i] & 127) << (7 * (i - 1));
			if (data[i] < 128) return 1 + i + length;
		}
		return 0;
	}

	void readPackets(Client& client, const uint8_t* data, size_t left) {
		while (!client.partial.empty() && left > 0) {
			auto* begun = reinterpret_cast<const uint8_t*>(client.partial.data());
			const size_t size = packetSize(begun, client.partial.size());
			const size_t take = size == 0 ? 1 : std::min(left, size - client.partial.size());
			client.partial.append(reinterpret_cast<const char*>(data), take);
			data += take;
			left -= take;
			begun = reinterpret_cast<const uint8_t*>(client.partial.data());
			if (packetSize(begun, client.partial.size()) != client.partial.size()) continue;
			handle(client, begun, client.partial.size());
			client.partial.clear();
		}
		while (left > 0) {
			const size_t size = packetSize(data, left);
			if (size == 0 || size > left) {
				client.partial.assign(reinterpret_cast<const char*>(data), left);
				return;
			}
			handle(client, data, size);
			data += size;
			left -= size;
		}
	}

	void handle(Client& client, const uint8_t* data, size_t size) {
		switch (data[0] & 0xf0) {
		case PUBLISH: return onPublish(client, data, size);
		case PUBACK:
		case PUBCOMP: return onCompleted(client, data + 2);
		case PUBREC: return sendAck(client, PUBREL, data + 2);
		case PUBREL & 0xf0: return sendAck(client, PUBCOMP, data + 2);
		case CONNACK:
			if (data[3] != 0) throw Failure("CONNECT was refused with code " + std::to_string(data[3]));
			if (client.filter.empty()) return becomeReady(client);
			client.phase = Phase::subscribing;
			{
				const string request = subscribePacket(client.filter, settings.qos);
				return send(client, request.data(), request.size());
			}
		case SUBACK:
			if (data[4] != settings.qos) throw Failure("SUBSCRIBE was answered with " + std::to_string(data[4]));
			return becomeReady(client);
		default: throw Failure("the broker sent a packet of type " + std::to_string(data[0] >> 4));
		}
	}

	void becomeReady(Client& client) {
		client.phase = Phase::ready;
		ready++;
	}
};
