// Load generator of the benchmark: puts load on a broker, checks that all arrives unchanged, once and in order, and reads the
// broker's CPU time and memory at the ends of the measured interval. It owns both ends of every message, so it knows what is
// under way. Knows nothing of which broker it talks to. `generator.mjs` compiles and starts it, with `--name value` arguments.
//
// Prints one JSON object; exit code 1 when it failed.

#include <sys/prctl.h>
#include <sys/resource.h>

#include <cstdio>
#include <map>
#include <sstream>

#include "clients.hpp"

/// Connections that warm the broker up before those that are counted.
constexpr int WARM_CONNECTIONS = 500;
/// Payload: publisher (4 bytes), sequence number (4), time it was due (8) or 0.
constexpr size_t LEAST_PAYLOAD = 16;
/// Number of the publisher that floods, and how much of its load may be under way.
constexpr uint32_t FLOOD = 0xffffffff;
constexpr int FLOOD_WINDOW = 1024;
/// Messages that may be under way in fan-out.
constexpr size_t SEEN = 1 << 16;

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
	int integer(const string& name, int fallback) const { return int(number(name, fallback)); }
	Nanos seconds(const string& name, double fallback) const { return Nanos(number(name, fallback) * SECOND); }
	Settings settings() const {
		return {text("path", "/mqtt"), integer("port", 8083), integer("qos", 0), integer("persistent", 0) != 0, integer("pack", 0) != 0};
	}
};

/// The process of the broker, as the operating system sees it.
struct Process {
	pid_t pid;

	/// User and system time of all threads: what /proc/PID/stat says, but in nanoseconds.
	Nanos cpu() const {
		clockid_t id;
		if (clock_getcpuclockid(pid, &id) != 0) throw Failure("the broker has ended");
		return clockOf(id);
	}
	long residentBytes() const {
		long size = 0, resident = 0;
		FILE* file = fopen(("/proc/" + std::to_string(pid) + "/statm").c_str(), "r");
		if (file == nullptr) throw Failure("the broker has ended");
		if (fscanf(file, "%ld %ld", &size, &resident) != 2) resident = 0;
		fclose(file);
		return resident * sysconf(_SC_PAGESIZE);
	}
};

struct Snapshot {
	Nanos time, brokerCpu, generatorCpu;
	long brokerRss;
	uint64_t delivered;
};

class Generator : Clients {
public:
	explicit Generator(const Options& options)
		: Clients(options.settings()), task(options.text("task", "flow")), topology(options.text("topology", "pairs")),
		  count(options.integer("clients", 50)), window(options.integer("window", 16)),
		  payloadSize(size_t(options.integer("payload", 64))), rate(options.number("rate", 0)),
		  warmup(options.seconds("warmup", 1)), measured(options.seconds("seconds", 3)), broker{options.integer("pid", 0)},
		  subscriberPort(options.integer("subscriberPort", options.integer("port", 8083))), other{options.integer("otherPid", 0)},
		  floods(options.integer("flood", 0) != 0) {
		if (payloadSize < LEAST_PAYLOAD) throw Failure("--payload is too small: expected 16 bytes or more");
	}

	void run() {
		if (task == "flow") flow();
		else if (task == "connect") connectStorm();
		else if (task == "idle") idleConnections();
		else throw Failure("--task is \"" + task + "\": expected flow, connect or idle");
	}

private:
	const string task, topology;
	const int count, window;
	const size_t payloadSize;
	/// Messages a second, or 0 for as many as the windows allow.
	const double rate;
	const Nanos warmup, measured;
	const Process broker;
	/// Of another replica, to which the subscribers are connected; its time counts, too.
	const int subscriberPort;
	const Process other;
	/// Whether somebody publishes as fast as it can to a subscriber of its own, beside what is measured.
	const bool floods;
	Client* flood = nullptr;
	bool flooding = false;

	std::vector<Client*> publishers;
	int subscriberCount = 0;
	/// Whether windows are to be filled.
	bool publishing = false;
	/// QoS 0 fan-out: how many subscribers have seen each message that is under way.
	std::vector<int> seen;
	uint64_t sent = 0, delivered = 0, outOfOrder = 0, acksOutOfOrder = 0;
	/// Nanoseconds.
	std::vector<uint32_t> latencies;

	void flow() {
		openPublishersAndSubscribers();
		warmUp();
		if (rate > 0) drain();
		const uint64_t framesBefore = frames, readsBefore = reads;
		const Snapshot before = snapshot();
		if (rate > 0) publishAtRate(before.time, before.time + measured);
		else publishWithin(before.time + measured);
		const Snapshot after = snapshot();
		const double messages = double(after.delivered - before.delivered);
		std::stringstream extra;
		extra << ",\"packetsPerFrame\":" << messages / double(std::max<uint64_t>(frames - framesBefore, 1))
			  << ",\"packetsPerRead\":" << messages / double(std::max<uint64_t>(reads - readsBefore, 1));
		drain();
		if (rate > 0) {
			std::sort(latencies.begin(), latencies.end());
			extra << ",\"p50\":" << quantile(0.5) << ",\"p99\":" << quantile(0.99) << ",\"p999\":" << quantile(0.999);
		}
		report(before, after, after.delivered - before.delivered, extra.str());
	}

	void connectStorm() {
		openNumbered("warm", WARM_CONNECTIONS, false);
		const Snapshot before = snapshot();
		openNumbered("client", count, false);
		report(before, snapshot(), uint64_t(count), "");
	}

	void idleConnections() {
		openNumbered("warm", WARM_CONNECTIONS, true);
		settle(warmup);
		const Snapshot before = snapshot();
		openNumbered("client", count, true);
		settle(measured);
		const Snapshot after = snapshot();
		report(before, after, uint64_t(count), ",\"bytesPerConnection\":" + std::to_string((after.brokerRss - before.brokerRss) / count));
	}

	void openNumbered(const string& name, int howMany, bool subscribe) {
		for (int i = 0; i < howMany; i++) {
			const string number = name + "-" + std::to_string(i);
			addClient("bench-" + number, subscribe ? "bench/idle/" + number : "");
		}
		openAll();
	}

	void settle(Nanos time) {
		for (const Nanos end = now() + time; now() < end; flushDirty()) turn(end - now());
	}

	void openPublishersAndSubscribers() {
		const bool fanOut = topology == "fan-out", fanIn = topology == "fan-in";
		if (!fanOut && !fanIn && topology != "pairs") throw Failure("--topology is \"" + topology + "\": expected fan-out, fan-in or pairs");
		const int publisherCount = fanOut ? 1 : count;
		subscriberCount = fanIn ? 1 : count;
		if (fanOut) seen.assign(SEEN, 0);
		for (int i = 0; i < subscriberCount; i++) {
			const string filter = fanOut ? "bench/all" : fanIn ? "bench/+/in" : "bench/" + std::to_string(i) + "/in";
			Client& client = addClient("bench-subscriber-" + std::to_string(i), filter);
			client.expected.assign(size_t(fanIn ? publisherCount : 1), 0);
			client.port = subscriberPort;
		}
		if (floods) addClient("bench-flooded", "bench/flood");
		openAll();
		for (int i = 0; i < publisherCount; i++) {
			Client& client = addClient("bench-publisher-" + std::to_string(i), "");
			prepare(client, uint32_t(i), fanOut ? "bench/all" : "bench/" + std::to_string(i) + "/in");
			publishers.push_back(&client);
		}
		if (floods) {
			flood = &addClient("bench-flood", "");
			prepare(*flood, FLOOD, "bench/flood");
		}
		openAll();
	}

	/// Until the broker has had the time that its compiler needs: on a busy machine that is longer than the clock says.
	void warmUp() {
		const Nanos start = now(), cpuBefore = broker.cpu();
		do publishWithin(now() + warmup / 4);
		while (now() < start + 4 * warmup && (now() < start + warmup || broker.cpu() - cpuBefore < warmup * 3 / 4));
	}

	/// Keeps every publisher's window full.
	void publishWithin(Nanos end) {
		publishing = true;
		lastProgress = now();
		for (Client* client : publishers) markDirty(*client);
		for (Nanos time = now(); time < end && time - lastProgress < STALL; time = now()) {
			flushDirty();
			turn(end - time);
		}
		publishing = false;
	}

	/// Publishes when a message is due, whatever is under way: latency counts from then, so a stall cannot hide.
	void publishAtRate(Nanos start, Nanos end) {
		precise = true;
		flooding = floods;
		if (flooding) markDirty(*flood);
		const auto dueAt = [&](uint64_t number) { return start + Nanos(double(number) * (SECOND / rate)); };
		uint64_t number = 0;
		for (Nanos time = now(); time < end; time = now()) {
			for (; dueAt(number) <= time; number++) publish(*publishers[number % publishers.size()], dueAt(number));
			flushDirty();
			turn(std::min(dueAt(number), end) - now());
		}
		precise = false;
		flooding = false;
	}

	int64_t unacknowledged() const {
		int64_t total = 0;
		for (Client* client : publishers) total += client->outstanding;
		return total;
	}

	uint64_t toArrive() const { return sent * uint64_t(topology == "fan-out" ? subscriberCount : 1); }

	/// Waits until all that was sent has arrived.
	void drain() {
		lastProgress = now();
		while ((delivered < toArrive() || unacknowledged() > 0) && now() - lastProgress < STALL) {
			flushDirty();
			turn(SECOND / 10);
		}
	}

	void prepare(Client& client, uint32_t number, const string& topic) {
		client.publishes = true;
		string body;
		putText(body, topic);
		const size_t idInBody = body.size();
		if (settings.qos > 0) putShort(body, 0);
		const size_t payloadInBody = body.size();
		body.append(payloadSize, 'x');
		client.packet = packet(uint8_t(PUBLISH | (settings.qos << 1)), body);
		const size_t head = client.packet.size() - body.size();
		client.idOffset = head + idInBody;
		client.payloadOffset = head + payloadInBody;
		memcpy(&client.packet[client.payloadOffset], &number, 4);
	}

	void publish(Client& client, Nanos due) {
		string& bytes = client.packet;
		if (settings.qos > 0) {
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

	void beforeWrite(Client& client) override {
		if (&client == flood) {
			for (; flooding && client.outstanding < FLOOD_WINDOW; client.outstanding++) send(client, client.packet.data(), client.packet.size());
			return;
		}
		while (publishing && client.publishes && client.outstanding < window) publish(client, 0);
	}

	void complete(Client& client) {
		client.outstanding--;
		if (publishing) markDirty(client);
	}

	void onCompleted(Client& client, const uint8_t* id) override {
		if (uint32_t(id[0] << 8 | id[1]) != client.acknowledged++ % 65535 + 1) acksOutOfOrder++;
		complete(client);
	}

	void onPublish(Client& client, const uint8_t* data, size_t size) override {
		const int qos = data[0] >> 1 & 3;
		if (qos != settings.qos) throw Failure("a message came with QoS " + std::to_string(qos));
		const uint8_t* payload = data + size - payloadSize;
		uint32_t number, sequence;
		memcpy(&number, payload, 4);
		memcpy(&sequence, payload + 4, 4);
		if (number == FLOOD) {
			// In portions: each message by itself would be written by itself.
			if (--flood->outstanding == FLOOD_WINDOW / 2) markDirty(*flood);
			return;
		}
		if (number >= publishers.size() || size != publishers[number]->packet.size()) throw Failure("a message came that was never sent");
		Client& publisher = *publishers[number];
		uint32_t& expected = client.expected[client.expected.size() == 1 ? 0 : number];
		if (expected != sequence) outOfOrder++;
		expected = sequence + 1;
		delivered++;
		Nanos due;
		memcpy(&due, payload + 8, 8);
		if (due != 0) latencies.push_back(uint32_t(std::min<Nanos>(lastProgress - due, UINT32_MAX)));
		if (qos > 0) return sendAck(client, qos == 1 ? PUBACK : PUBREC, payload - 2);
		if (seen.empty()) return complete(publisher);
		if (++seen[sequence % SEEN] < subscriberCount) return;
		seen[sequence % SEEN] = 0;
		complete(publisher);
	}

	Nanos brokerCpu() const { return broker.cpu() + (other.pid == 0 ? 0 : other.cpu()); }

	Snapshot snapshot() const { return {now(), brokerCpu(), clockOf(CLOCK_PROCESS_CPUTIME_ID), broker.residentBytes(), delivered}; }

	/// Of the latencies, which are sorted, in µs.
	double quantile(double q) const {
		return latencies.empty() ? 0 : latencies[std::min(latencies.size() - 1, size_t(double(latencies.size()) * q))] / 1000.0;
	}

	std::vector<string> problems() const {
		std::vector<string> found;
		const string expected = std::to_string(toArrive());
		if (delivered != toArrive()) found.push_back(expected + " messages were to arrive, " + std::to_string(delivered) + " did");
		if (outOfOrder > 0) found.push_back(std::to_string(outOfOrder) + " messages out of order");
		if (acksOutOfOrder > 0) found.push_back(std::to_string(acksOutOfOrder) + " acknowledgements out of order");
		if (unacknowledged() != 0) found.push_back(std::to_string(unacknowledged()) + " messages not completed");
		return found;
	}

	void report(const Snapshot& before, const Snapshot& after, uint64_t counted, const string& extra) const {
		printf("{\"count\":%llu,\"seconds\":%.6f,\"brokerCpuSeconds\":%.6f,\"generatorCpuSeconds\":%.6f,\"rssBytes\":%ld%s,\"problems\":[",
			(unsigned long long)counted, double(after.time - before.time) / SECOND, double(after.brokerCpu - before.brokerCpu) / SECOND,
			double(after.generatorCpu - before.generatorCpu) / SECOND, after.brokerRss, extra.c_str());
		const char* separator = "";
		for (const string& problem : problems()) {
			printf("%s\"%s\"", separator, problem.c_str());
			separator = ",";
		}
		printf("]}\n");
	}
};

int main(int argc, char** argv) {
	rlimit limit{};
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	// Otherwise the kernel wakes a sleeper up to 50 µs late.
	prctl(PR_SET_TIMERSLACK, 1);
	try {
		Generator(Options(argc, argv)).run();
		return 0;
	} catch (const std::exception& error) {
		string problem = error.what();
		std::replace(problem.begin(), problem.end(), '"', '\'');
		printf("{\"problems\":[\"%s\"]}\n", problem.c_str());
		return 1;
	}
}
