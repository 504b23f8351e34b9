/**
 * What clients saw, as a list of events in the order in which one process saw them, and the judge of such a list: nothing
 * acknowledged is lost, nothing comes out of nowhere, QoS 2 comes once, first deliveries keep the order of their publisher.
 * Knows neither sockets nor brokers.
 */

/** What happened. `client` is a client id; `connection` counts the connections of a client from 1. */
export type HistoryEvent =
	/** CONNACK with success. */
	| { readonly kind: "connected"; readonly client: string; readonly sessionPresent: boolean }
	/** A connection that had its CONNACK is over. */
	| { readonly kind: "closed"; readonly client: string; readonly connection: number }
	/** SUBSCRIBE handed to the network: messages may come from here on. */
	| { readonly kind: "subscribing"; readonly client: string; readonly filter: string; readonly qos: number }
	/** SUBACK: from here on all are owed. `filter` as subscribed, with `$share/` where shared; one subscription for each client. */
	| { readonly kind: "subscribed"; readonly client: string; readonly filter: string; readonly qos: number }
	/** PUBLISH handed to the network; `dup` when it was sent before. */
	| ({ readonly kind: "published"; readonly dup: boolean } & MessageOnTheWay)
	/** PUBACK or PUBREC with success: the broker has it. */
	| { readonly kind: "acknowledged"; readonly client: string; readonly seq: number }
	/** A message reached the application behind a subscriber: after the suppression of QoS 2 packet ids that it knows. */
	| ({ readonly kind: "delivered"; readonly subscriber: string; readonly connection: number } & MessageOnTheWay)
	/** A fault was done to the broker. */
	| { readonly kind: "fault"; readonly what: string }
	/** The broker broke a rule that a client sees at once. */
	| { readonly kind: "broken"; readonly client: string; readonly rule: string };

/** A message as it was sent or came: `client` published it as its `seq`th. */
export interface MessageOnTheWay {
	readonly client: string;
	readonly seq: number;
	readonly topic: string;
	readonly qos: number;
	readonly payload: string;
}

/** What the judge says. A run is good when `violations` is empty. */
export interface Verdict {
	/** Publications acknowledged with QoS 1 or 2. */
	readonly acknowledged: number;
	/** Deliveries, those of QoS 0 and repetitions included. */
	readonly delivered: number;
	/** Deliveries of QoS 1 beyond the first to the same subscription, for which there was a reason. */
	readonly repeated: number;
	/** Acknowledged publications that a subscription did not get, counted for each subscription. */
	readonly lost: number;
	/** Faults done to the broker. */
	readonly faults: number;
	/** Each a sentence, the first hundred of them. */
	readonly violations: readonly string[];
}

interface Sent {
	readonly event: MessageOnTheWay;
	/** Place of its first PUBLISH in the history. */
	readonly at: number;
	resent: boolean;
	acknowledged: boolean;
}

/** One subscription, or one share group with all its members. */
interface Reader {
	readonly name: string;
	readonly filter: string;
	readonly qos: number;
	readonly shared: boolean;
	/** Place of the SUBACK in the history. */
	at: number;
	/** Connection that a message was last delivered on, by message. */
	readonly seen: Map<Sent, string>;
	/** Highest `seq` delivered, by publisher, topic and QoS. */
	readonly newest: Map<string, number>;
}

const MAX_VIOLATIONS = 100;

/** Judges a history whose run is over: all clients were given the time to get what they were owed. */
export function judge(events: readonly HistoryEvent[]): Verdict {
	return new Judge().judge(events);
}

class Judge {
	readonly #violations: string[] = [];
	readonly #sent = new Map<string, Sent>();
	/** By client id of a subscriber; members of a share group have the same one. */
	readonly #readers = new Map<string, Reader>();
	readonly #known = new Set<string>();
	/** Connections that are over. */
	readonly #closed = new Set<string>();
	/** Repetitions by the connection of the delivery before, which the broker may have ended before its client could see that. */
	readonly #doubtful = new Map<string, string[]>();
	#acknowledged = 0;
	#delivered = 0;
	#repeated = 0;
	#faults = 0;

	judge(events: readonly HistoryEvent[]): Verdict {
		for (const [at, event] of events.entries()) this.#take(event, at);
		for (const place of [...this.#doubtful.keys()]) this.#wasNotOver(place);
		const lost = this.#judgeLosses();
		return {
			acknowledged: this.#acknowledged,
			delivered: this.#delivered,
			repeated: this.#repeated,
			lost,
			faults: this.#faults,
			violations: this.#violations,
		};
	}

	#take(event: HistoryEvent, at: number): void {
		switch (event.kind) {
			case "connected":
				if (this.#known.has(event.client) && !event.sessionPresent) this.#violation(`the session of ${event.client} is gone`);
				this.#known.add(event.client);
				break;
			case "closed":
				this.#closed.add(`${event.client}#${event.connection}`);
				this.#repeated += this.#doubtful.get(`${event.client}#${event.connection}`)?.length ?? 0;
				this.#doubtful.delete(`${event.client}#${event.connection}`);
				break;
			case "subscribing":
				this.#readerOf(event);
				break;
			case "subscribed": {
				const reader = this.#readerOf(event);
				reader.at = Math.min(reader.at, at);
				break;
			}
			case "published":
				this.#published(event, event.dup, at);
				break;
			case "acknowledged":
				this.#acknowledgement(event.client, event.seq);
				break;
			case "delivered":
				this.#delivery(event);
				break;
			case "fault":
				this.#faults++;
				break;
			case "broken":
				this.#violation(`${event.client}: ${event.rule}`);
				break;
		}
	}

	#readerOf({ client, filter, qos }: { readonly client: string; readonly filter: string; readonly qos: number }): Reader {
		const shared = filter.startsWith("$share/");
		const known = this.#readers.get(client) ?? [...this.#readers.values()].find((reader) => shared && reader.name === filter);
		const at = Number.POSITIVE_INFINITY;
		const reader = known ?? { name: shared ? filter : client, filter, qos, shared, at, seen: new Map(), newest: new Map() };
		this.#readers.set(client, reader);
		return reader;
	}

	#published(event: MessageOnTheWay, dup: boolean, at: number): void {
		const earlier = this.#sent.get(nameOf(event));
		if (earlier === undefined) this.#sent.set(nameOf(event), { event, at, resent: dup, acknowledged: false });
		else earlier.resent = true;
	}

	#acknowledgement(client: string, seq: number): void {
		const sent = this.#sent.get(nameOf({ client, seq }));
		if (sent === undefined) this.#violation(`${nameOf({ client, seq })} was acknowledged and never sent`);
		else if (!sent.acknowledged) {
			sent.acknowledged = true;
			this.#acknowledged++;
		}
	}

	#delivery(event: Extract<HistoryEvent, { kind: "delivered" }>): void {
		const { subscriber, connection } = event;
		const name = nameOf(event);
		const reader = this.#readers.get(subscriber);
		const sent = this.#sent.get(name);
		this.#delivered++;
		if (reader === undefined) this.#violation(`${subscriber} got ${name} before it subscribed`);
		else if (sent === undefined) this.#violation(`${subscriber} got ${name}, which nobody sent`);
		else if (sent.event.topic !== event.topic || sent.event.payload !== event.payload) this.#violation(`${subscriber} got ${name} altered`);
		else {
			const qos = Math.min(sent.event.qos, reader.qos);
			if (event.qos !== qos) this.#violation(`${subscriber} got ${name} with QoS ${event.qos} instead of ${qos}`);
			const place = `${subscriber}#${connection}`;
			this.#wasNotOver(place);
			const before = reader.seen.get(sent);
			reader.seen.set(sent, place);
			if (before === undefined) this.#judgeOrder(reader, sent);
			else this.#judgeRepetition(reader, sent, qos, before, place);
		}
	}

	/**
	 * Only first deliveries have an order, and a share group has none. What was sent again, and first before the subscription,
	 * may come as a repetition alone, behind what its publisher sent later.
	 */
	#judgeOrder(reader: Reader, { event, at, resent }: Sent): void {
		if (reader.shared || (resent && at < reader.at)) return;
		const lane = `${event.client} ${event.topic} ${event.qos}`;
		const newest = reader.newest.get(lane) ?? -1;
		if (event.seq < newest) this.#violation(`${reader.name} got ${nameOf(event)} first after ${event.client}:${newest}`);
		else reader.newest.set(lane, event.seq);
	}

	/** The connection lives: what was delivered on it was repeated elsewhere without need. */
	#wasNotOver(place: string): void {
		for (const sentence of this.#doubtful.get(place) ?? []) this.#violation(sentence);
		this.#doubtful.delete(place);
	}

	/**
	 * QoS 1 may repeat what was sent twice, and what was delivered on a connection that is over, since nobody knows whether it was
	 * acknowledged. The broker knows that before the client: such a connection has to end with nothing more delivered on it.
	 */
	#judgeRepetition(reader: Reader, sent: Sent, qos: number, before: string, now: string): void {
		const name = nameOf(sent.event);
		const excused = (sent.event.qos === 1 && sent.resent) || this.#closed.has(before);
		if (qos === 2) this.#violation(`${reader.name} got ${name} twice with QoS 2, on ${before} and ${now}`);
		else if (qos === 1 && !excused) {
			const sentence = `${reader.name} got ${name} twice without need, on ${before} and ${now}`;
			if (before === now) this.#violation(sentence);
			else this.#doubtful.set(before, [...(this.#doubtful.get(before) ?? []), sentence]);
		} else this.#repeated++;
	}

	/** Every acknowledged publication that came after a SUBACK has reached its subscription. */
	#judgeLosses(): number {
		let lost = 0;
		for (const reader of new Set(this.#readers.values())) {
			const filter = reader.shared ? reader.filter.split("/").slice(2).join("/") : reader.filter;
			const mine = [...this.#sent.values()].filter(
				({ event, at, acknowledged }) => acknowledged && at > reader.at && matches(filter, event.topic),
			);
			const missing = mine.filter((sent) => !reader.seen.has(sent));
			lost += missing.length;
			for (const { event } of missing.slice(0, MAX_VIOLATIONS))
				this.#violation(`${reader.name} never got ${nameOf(event)}, ${placeOf(event, mine, reader)}`);
		}
		return lost;
	}

	#violation(sentence: string): void {
		if (this.#violations.length < MAX_VIOLATIONS) this.#violations.push(sentence);
	}
}

/** Where in the stream of its publisher a loss lies, which tells a lost beginning from a lost end. */
function placeOf(lost: MessageOnTheWay, owed: readonly Sent[], reader: Reader): string {
	const got = owed.filter((sent) => sent.event.client === lost.client && reader.seen.has(sent)).map(({ event }) => event.seq);
	if (got.length === 0) return "as all others of that publisher";
	if (got.every((seq) => seq > lost.seq)) return "which is before all that it got";
	return got.every((seq) => seq < lost.seq) ? "which is after all that it got" : "which is in the middle of what it got";
}

function nameOf({ client, seq }: { readonly client: string; readonly seq: number }): string {
	return `${client}:${seq}`;
}

/** MQTT's matching, written once more so that the broker is not its own judge. */
function matches(filter: string, topic: string): boolean {
	const levels = topic.split("/");
	const pattern = filter.split("/");
	for (const [index, level] of pattern.entries()) {
		if (level === "#") return true;
		if (index >= levels.length || (level !== "+" && level !== levels[index])) return false;
	}
	return pattern.length === levels.length;
}
