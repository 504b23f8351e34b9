/**
 * A way to Redis that can lose or hold up what the server answers, so that the commands are done and nobody learns it, or late;
 * or that loses what it is asked too.
 */

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export class LossyProxy {
	readonly #server: Server;
	readonly #pairs = new Set<readonly [client: Socket, upstream: Socket]>();
	#losing = false;
	#losingQuestions = false;
	readonly #deafened = new Set<unknown>();
	readonly #sent = new Map<unknown, string>();
	#slow: { readonly word: string; readonly ms: number } | undefined;

	private constructor(server: Server) {
		this.#server = server;
	}

	/** @param port of the server behind it, on this machine. */
	static async start(port: number): Promise<LossyProxy> {
		const server = createServer();
		const proxy = new LossyProxy(server);
		server.on("connection", (client) => proxy.#join(client, connect(port, "127.0.0.1")));
		server.listen(0, "127.0.0.1");
		await once(server, "listening");
		return proxy;
	}

	get url(): string {
		return `redis://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
	}

	/** From now on no answer comes through. */
	loseAnswers(): void {
		this.#losing = true;
	}

	/** From now on nothing comes through in either direction. */
	loseAll(): void {
		this.#losing = true;
		this.#losingQuestions = true;
	}

	/** From now on answers come late on connections that send this word. */
	slowDown(word: string, ms: number): void {
		this.#slow = { word, ms };
	}

	/** From now on no answer comes through on those of the present connections that have sent this word. */
	deafen(word: string): void {
		for (const [pair, sent] of this.#sent) if (sent.includes(word)) this.#deafened.add(pair);
	}

	/** Ends all connections; new ones are whole. */
	cut(): void {
		this.#losing = false;
		this.#losingQuestions = false;
		for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
	}

	async stop(): Promise<void> {
		this.cut();
		this.#server.close();
		await once(this.#server, "close");
	}

	#join(client: Socket, upstream: Socket): void {
		const pair = [client, upstream] as const;
		this.#pairs.add(pair);
		let slow = false;
		client.on("data", (data) => {
			this.#sent.set(pair, `${this.#sent.get(pair) ?? ""}${data.toString("latin1")}`);
			slow ||= this.#slow !== undefined && data.includes(this.#slow.word);
			if (!this.#losingQuestions) upstream.write(data);
		});
		upstream.on("data", (data) => {
			if (this.#losing) return;
			if (this.#deafened.has(pair)) return;
			if (slow) setTimeout(() => client.write(data), this.#slow?.ms);
			else client.write(data);
		});
		for (const [socket, other] of [
			[client, upstream],
			[upstream, client],
		] as const) {
			socket.on("error", () => {});
			socket.on("close", () => {
				this.#pairs.delete(pair);
				this.#sent.delete(pair);
				other.destroy();
			});
		}
	}
}
