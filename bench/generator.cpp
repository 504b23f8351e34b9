// Load generator of the benchmark: many MQTT 3.1.1 clients over raw WebSocket frames, in one thread on epoll. It owns both ends
// of every message, so it knows what is under way, checks that all arrives once and in order, and reads the broker's CPU time
// and memory at the ends of the measured interval. Knows nothing of which broker it talks to. `run.mjs` compiles and starts it.
//
// Frames are masked with the key 0, which leaves the bytes as they are. Prints one JSON object; exit code 1 when it failed.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

using std::string;
using Nanos = int64_t;

constexpr Nanos SECOND = 1'000'000'000;
/// Handshakes under way at a time: enough to keep a broker busy, below every listen backlog.
constexpr int HANDSHAKES = 64;
/// Without any progress for so long, the run has failed.
constexpr Nanos STALL = 5 * SECOND;
/// Connections that warm the broker up before those that are counted.
constexpr int WARM_CONNECTIONS = 500;
/// Payload: publisher (4 bytes), sequence number (4), time it was due (8).
constexpr size_t LEAST_PAYLOAD = 16;

constexpr uint8_t CONNACK = 0x20, PUBLISH = 0x30, PUBACK = 0x40, PUBREC = 0x50, PUBREL = 0x62, PUBCOMP = 0x70, SUBACK = 0x90;

struct Failure : std::runtime_error {
	using std::runtime_error::runtime_error;
};

// ---- what is asked for

struct Options {
	std::map<string, string> values;

	Options(int argc, char** argv) {
		for (int i = 1; i + 1 < argc; i += 2) {
			if (strncmp(argv[i], "--", 2) != 0) throw Failure(string("\"") + argv[i] + "\" is not an option: expected --name value");
			values[argv[i] + 2] = argv[i + 1];
		}
	}
	string text(const string& name, const string& fallback) const {
		auto found = values.find(name);
		return found == values.end() ? fallback : found->second;
	}
	double number(const string& name, double fallback) const { return std::stod(text(name, std::to_string(fallback))); }
};

// ---- what the operating system says

Nanos clockOf(clockid_t id) {
	timespec ts{};
	clock_gettime(id, &ts);
	return ts.tv_sec * SECOND + ts.tv_nsec;
}

Nanos now() { return clockOf(CLOCK_MONOTONIC); }

struct Snapshot {
	Nanos time = 0, brokerCpu = 0, generatorCpu = 0;
	long brokerRss = 0;
	uint64_t delivered = 0;
};

/// The processes of the broker. Their CPU time is user + system of all threads: the sum of /proc/PID/stat, but in nanoseconds.
struct Processes {
	std::vector<pid_t> pids;

	Nanos cpu() const {
		Nanos total = 0;
		for (pid_t pid : pids) {
			clockid_t id;
			if (clock_getcpuclockid(pid, &id) != 0) throw Failure("the broker process " + std::to_string(pid) + " has ended");
			total += clockOf(id);
		}
		return total;
	}
	long rss() const {
		long total = 0;
		for (pid_t pid : pids) {
			long size = 0, resident = 0;
			FILE* file = fopen(("/proc/" + std::to_string(pid) + "/statm").c_str(), "r");
			if (file != nullptr && fscanf(file, "%ld %ld", &size, &resident) == 2) total += resident * sysconf(_SC_PAGESIZE);
			if (file != nullptr) fclose(file);
		}
		return total;
	}
};

// ---- MQTT packets

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

// ---- clients

enum class Phase { connecting, upgrading, greeting, subscribing, ready };

struct Client {
	int index = 0;
	int fd = -1;
	Phase phase = Phase::connecting;
	string id, filter;
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
	string publishTemplate;
	size_t idOffset = 0, payloadOffset = 0;
	uint32_t sent = 0, acknowledged = 0;
	int outstanding = 0;
	// As a subscriber: the next sequence number of each publisher.
	std::vector<uint32_t> expected;
};

class Generator {
public:
	explicit Generator(const Options& options)
		: topology(options.text("topology", "pairs")), task(options.text("task", "flow")), path(options.text("path", "/mqtt")),
		  port(int(options.number("port", 8083))), clientsAsked(int(options.number("clients", 50))), qos(int(options.number("qos", 0))),
		  window(int(options.number("window", 16))), payloadSize(size_t(options.number("payload", 64))), rate(options.number("rate", 0)),
		  persistent(options.number("persistent", 0) != 0), pack(options.number("pack", 0) != 0),
		  warmup(Nanos(options.number("warmup", 1) * SECOND)), measured(Nanos(options.number("seconds", 3) * SECOND)) {
		std::stringstream list(options.text("pids", ""));
		for (string pid; std::getline(list, pid, ',');) broker.pids.push_back(std::stoi(pid));
		if (payloadSize < LEAST_PAYLOAD) throw Failure("--payload is too small: expected 16 bytes or more");
		epoll = epoll_create1(0);
		buffer.resize(1 << 18);
		rlimit limit{};
		getrlimit(RLIMIT_NOFILE, &limit);
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
		// Otherwise the kernel wakes a sleeper up to 50 µs late.
		prctl(PR_SET_TIMERSLACK, 1);
	}

	void run() {
		if (task == "flow") flow();
		else if (task == "connect") connectStorm();
		else if (task == "idle") idleConnections();
		else throw Failure("--task is \"" + task + "\": expected flow, connect or idle");
	}

private:
	const string topology, task, path;
	const int port, clientsAsked, qos, window;
	const size_t payloadSize;
	const double rate;
	const bool persistent, pack;
	const Nanos warmup, measured;

	Processes broker;
	int epoll = -1;
	std::vector<char> buffer;
	std::vector<std::unique_ptr<Client>> clients;
	std::vector<Client*> publishers, dirty;
	size_t opened = 0, ready = 0;
	int subscriberCount = 0;
	bool publishing = false;
	/// QoS 0 fan-out: how many subscribers have seen each message that is under way.
	std::vector<int> seen;
	uint64_t sent = 0, delivered = 0, outOfOrder = 0, acksOutOfOrder = 0, frames = 0, reads = 0;
	Nanos lastProgress = 0;
	std::vector<uint32_t> latencies;

	// ---- tasks

	void flow() {
		const bool fanOut = topology == "fan-out", fanIn = topology == "fan-in";
		if (!fanOut && !fanIn && topology != "pairs") throw Failure("--topology is \"" + topology + "\": expected fan-out, fan-in or pairs");
		const int publisherCount = fanOut ? 1 : clientsAsked;
		subscriberCount = fanIn ? 1 : clientsAsked;
		for (int i = 0; i < subscriberCount; i++) {
			string filter = fanOut ? "bench/all" : fanIn ? "bench/+/in" : "bench/pair/" + std::to_string(i);
			addClient("bench-subscriber-" + std::to_string(i), filter).expected.assign(fanIn ? publisherCount : 1, 0);
		}
		openAll();
		for (int i = 0; i < publisherCount; i++) {
			Client& client = addClient("bench-publisher-" + std::to_string(i), "");
			const string name = std::to_string(i);
			prepare(client, uint32_t(i), fanOut ? "bench/all" : fanIn ? "bench/" + name + "/in" : "bench/pair/" + name);
			publishers.push_back(&client);
		}
		openAll();
		if (fanOut && rate == 0) seen.assign(size_t(window), 0);

		const Nanos start = lastProgress = now();
		const Nanos measureFrom = start + warmup, measureTo = measureFrom + measured;
		publishing = true;
		for (Client* client : publishers) markDirty(*client);
		uint64_t due = 0;
		Snapshot before, after;
		uint64_t framesBefore = 0, readsBefore = 0;
		for (;;) {
			Nanos time = now();
			if (before.time == 0 && time >= measureFrom) {
				before = snapshot();
				framesBefore = frames;
				readsBefore = reads;
				latencies.clear();
			}
			if (time >= measureTo) break;
			Nanos next = before.time == 0 ? measureFrom : measureTo;
			if (rate > 0) {
				for (; start + Nanos(due * (SECOND / rate)) <= time; due++) {
					publish(*publishers[due % publishers.size()], start + Nanos(due * (SECOND / rate)));
				}
				next = std::min(next, start + Nanos(due * (SECOND / rate)));
			}
			flushDirty();
			turn(next - now());
			if (rate == 0 && now() - lastProgress > STALL) break;
		}
		after = snapshot();
		const uint64_t framesRead = frames - framesBefore, readCalls = reads - readsBefore;
		auto latency = latencies;
		publishing = false;
		const uint64_t copies = uint64_t(fanOut ? subscriberCount : 1);
		lastProgress = now();
		while ((delivered < sent * copies || unacknowledged() > 0) && now() - lastProgress < STALL) {
			flushDirty();
			turn(SECOND / 10);
		}
		std::vector<string> problems;
		if (delivered != sent * copies) problems.push_back(std::to_string(sent * copies) + " sent, " + std::to_string(delivered) + " arrived");
		if (outOfOrder > 0) problems.push_back(std::to_string(outOfOrder) + " out of order");
		if (acksOutOfOrder > 0) problems.push_back(std::to_string(acksOutOfOrder) + " acknowledgements out of order");
		if (unacknowledged() > 0) problems.push_back(std::to_string(unacknowledged()) + " never acknowledged");
		std::sort(latency.begin(), latency.end());
		std::stringstream extra;
		const double messages = double(after.delivered - before.delivered);
		extra << ",\"packetsPerFrame\":" << (framesRead > 0 ? messages / double(framesRead) : 0)
			  << ",\"packetsPerRead\":" << (readCalls > 0 ? messages / double(readCalls) : 0);
		if (rate > 0) {
			extra << ",\"p50\":" << quantile(latency, 0.5) << ",\"p99\":" << quantile(latency, 0.99)
				  << ",\"p999\":" << quantile(latency, 0.999);
		}
		report(before, after, after.delivered - before.delivered, problems, extra.str());
	}

	void connectStorm() {
		for (int i = 0; i < WARM_CONNECTIONS; i++) addClient("bench-warm-" + std::to_string(i), "");
		openAll();
		for (int i = 0; i < clientsAsked; i++) addClient("bench-client-" + std::to_string(i), "");
		const Snapshot before = snapshot();
		openAll();
		report(before, snapshot(), uint64_t(clientsAsked), {}, "");
	}

	void idleConnections() {
		for (int i = 0; i < WARM_CONNECTIONS; i++) addClient("bench-warm-" + std::to_string(i), "bench/warm/" + std::to_string(i));
		openAll();
		settle(warmup);
		const Snapshot before = snapshot();
		for (int i = 0; i < clientsAsked; i++) addClient("bench-client-" + std::to_string(i), "bench/idle/" + std::to_string(i));
		openAll();
		settle(measured);
		const Snapshot after = snapshot();
		std::stringstream extra;
		extra << ",\"bytesPerConnection\":" << (after.brokerRss - before.brokerRss) / clientsAsked;
		report(before, after, uint64_t(clientsAsked), {}, extra.str());
	}

	void settle(Nanos time) {
		for (const Nanos end = now() + time; now() < end;) {
			turn(end - now());
			flushDirty();
		}
	}

	// ---- results

	Snapshot snapshot() const { return {now(), broker.cpu(), clockOf(CLOCK_PROCESS_CPUTIME_ID), broker.rss(), delivered}; }

	uint64_t unacknowledged() const {
		uint64_t total = 0;
		for (Client* client : publishers) total += uint64_t(client->outstanding);
		return rate > 0 && qos == 0 ? 0 : total;
	}

	static double quantile(const std::vector<uint32_t>& sorted, double q) {
		if (sorted.empty()) return 0;
		return sorted[std::min(sorted.size() - 1, size_t(double(sorted.size()) * q))] / 1000.0;
	}

	void report(const Snapshot& before, const Snapshot& after, uint64_t count, const std::vector<string>& problems, const string& extra) {
		const double seconds = double(after.time - before.time) / SECOND;
		printf("{\"count\":%llu,\"seconds\":%.6f,\"brokerCpuSeconds\":%.6f,\"generatorCpuSeconds\":%.6f,\"rssBytes\":%ld%s,\"problems\":[",
			(unsigned long long)count, seconds, double(after.brokerCpu - before.brokerCpu) / SECOND,
			double(after.generatorCpu - before.generatorCpu) / SECOND, after.brokerRss, extra.c_str());
		for (size_t i = 0; i < problems.size(); i++) printf("%s\"%s\"", i == 0 ? "" : ",", problems[i].c_str());
		printf("]}\n");
	}

	// ---- connections

	Client& addClient(const string& id, const string& filter) {
		clients.push_back(std::make_unique<Client>());
		Client& client = *clients.back();
		client.index = int(clients.size()) - 1;
		client.id = id;
		client.filter = filter;
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

	void open(Client& client) {
		client.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (client.fd < 0) throw Failure(string("cannot open a socket: ") + strerror(errno) + "; raise the limit of open files");
		const int on = 1;
		setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		sockaddr_in address{};
		address.sin_family = AF_INET;
		address.sin_port = htons(uint16_t(port));
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

	/// Waits for events, at most `longest`, and handles them.
	void turn(Nanos longest) {
		epoll_event events[512];
		const timespec wait{std::max<Nanos>(longest, 0) / SECOND, std::max<Nanos>(longest, 0) % SECOND};
		// epoll_wait counts in milliseconds, which is too coarse for a fixed rate.
		pollfd either{epoll, POLLIN, 0};
		if (rate > 0) ppoll(&either, 1, &wait, nullptr);
		const int milliseconds = rate > 0 ? 0 : int(std::max<Nanos>(longest, 0) / 1'000'000) + 1;
		const int count = epoll_wait(epoll, events, 512, milliseconds);
		for (int i = 0; i < count; i++) {
			Client& client = *static_cast<Client*>(events[i].data.ptr);
			if (client.phase == Phase::connecting) upgrade(client);
			else if (events[i].events & EPOLLOUT) flush(client);
			if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) receive(client);
		}
	}

	void upgrade(Client& client) {
		int error = 0;
		socklen_t size = sizeof error;
		getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &size);
		if (error != 0) throw Failure(string("cannot connect: ") + strerror(error));
		client.phase = Phase::upgrading;
		client.out = "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port) +
					 "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
					 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
		flush(client);
	}

	void markDirty(Client& client) {
		if (client.dirty) return;
		client.dirty = true;
		dirty.push_back(&client);
	}

	/// Fills the windows of publishers that have room, then writes what each client has to say in one call.
	void flushDirty() {
		for (Client* client : dirty) {
			if (publishing && client->publishes && rate == 0) {
				while (client->outstanding < window) publish(*client, 0);
			}
			client->dirty = false;
			if (!client->packed.empty()) {
				putFrame(client->out, 0x82, client->packed.data(), client->packed.size());
				client->packed.clear();
			}
			if (!client->wantsWrite) flush(*client);
		}
		dirty.clear();
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

	void send(Client& client, const char* data, size_t size) {
		if (pack) client.packed.append(data, size);
		else putFrame(client.out, 0x82, data, size);
		markDirty(client);
	}

	void sendAck(Client& client, uint8_t first, const uint8_t* id) {
		const char ack[4] = {char(first), 2, char(id[0]), char(id[1])};
		send(client, ack, sizeof ack);
	}

	// ---- publishing

	void prepare(Client& client, uint32_t number, const string& topic) {
		client.publishes = true;
		string body;
		putText(body, topic);
		const size_t idInBody = body.size();
		if (qos > 0) putShort(body, 0);
		const size_t payloadInBody = body.size();
		body.append(payloadSize, 'x');
		client.publishTemplate = packet(uint8_t(PUBLISH | (qos << 1)), body);
		const size_t before = client.publishTemplate.size() - body.size();
		client.idOffset = before + idInBody;
		client.payloadOffset = before + payloadInBody;
		memcpy(&client.publishTemplate[client.payloadOffset], &number, 4);
	}

	void publish(Client& client, Nanos due) {
		string& bytes = client.publishTemplate;
		if (qos > 0) {
			const uint32_t id = client.sent % 65535 + 1;
			bytes[client.idOffset] = char(id >> 8);
			bytes[client.idOffset + 1] = char(id);
		}
		memcpy(&bytes[client.payloadOffset + 4], &client.sent, 4);
		memcpy(&bytes[client.payloadOffset + 8], &due, 8);
		client.sent++;
		client.outstanding++;
		sent++;
		send(client, bytes.data(), bytes.size());
	}

	void complete(Client& client) {
		client.outstanding--;
		if (publishing) markDirty(client);
	}

	// ---- receiving

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
			const string hello = connectPacket(client.id, !persistent);
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
		case PUBLISH: return received(client, data, size);
		case PUBACK:
		case PUBCOMP: return acknowledged(client, data + size - 2);
		case PUBREC: return sendAck(client, PUBREL, data + 2);
		case PUBREL & 0xf0: return sendAck(client, PUBCOMP, data + 2);
		case CONNACK:
			if (data[3] != 0) throw Failure("CONNECT was refused with code " + std::to_string(data[3]));
			if (client.filter.empty()) return becomeReady(client);
			client.phase = Phase::subscribing;
			{
				const string request = subscribePacket(client.filter, qos);
				return send(client, request.data(), request.size());
			}
		case SUBACK:
			if (data[4] != qos) throw Failure("SUBSCRIBE was granted " + std::to_string(data[4]) + " instead of " + std::to_string(qos));
			return becomeReady(client);
		default: throw Failure("the broker sent a packet of type " + std::to_string(data[0] >> 4));
		}
	}

	void becomeReady(Client& client) {
		client.phase = Phase::ready;
		ready++;
	}

	void acknowledged(Client& client, const uint8_t* id) {
		if (uint32_t(id[0] << 8 | id[1]) != client.acknowledged++ % 65535 + 1) acksOutOfOrder++;
		complete(client);
	}

	void received(Client& client, const uint8_t* data, size_t size) {
		const int granted = data[0] >> 1 & 3;
		if (granted != qos) throw Failure("a message came with QoS " + std::to_string(granted));
		const uint8_t* payload = data + size - payloadSize;
		uint32_t publisher, number;
		memcpy(&publisher, payload, 4);
		memcpy(&number, payload + 4, 4);
		const size_t place = client.expected.size() == 1 ? 0 : publisher;
		if (publisher >= publishers.size() || place >= client.expected.size()) throw Failure("a message came that was never sent");
		if (client.expected[place] != number) outOfOrder++;
		client.expected[place] = number + 1;
		delivered++;
		if (rate > 0) {
			Nanos due;
			memcpy(&due, payload + 8, 8);
			latencies.push_back(uint32_t(std::min<Nanos>(lastProgress - due, UINT32_MAX)));
		}
		if (qos > 0) {
			sendAck(client, qos == 1 ? PUBACK : PUBREC, payload - 2);
		} else if (seen.empty()) {
			complete(*publishers[publisher]);
		} else if (++seen[number % size_t(window)] == subscriberCount) {
			seen[number % size_t(window)] = 0;
			complete(*publishers[publisher]);
		}
	}
};

int main(int argc, char** argv) {
	try {
		Generator(Options(argc, argv)).run();
		return 0;
	} catch (const std::exception& error) {
		printf("{\"problems\":[\"%s\"]}\n", error.what());
		return 1;
	}
}
