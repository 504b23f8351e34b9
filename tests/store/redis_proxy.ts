/** A way to Redis that can lose or hold up what the server answers: the commands are done, and nobody learns it, or late. */

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export class LossyProxy {
	readonly #server: Server;
	readonly #pairs = new Set<readonly [client: Socket, upstream: Socket]>();
	#losing = false;
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

	/** From now on answers come late on connections that send this word. */
	slowDown(word: string, ms: number): void {
		this.#slow = { word, ms };
	}

	/** Ends all connections; new ones are whole. */
	cut(): void {
		this.#losing = false;
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
			slow ||= this.#slow !== undefined && data.includes(this.#slow.word);
			upstream.write(data);
		});
		upstream.on("data", (data) => {
			if (this.#losing) return;
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
				other.destroy();
			});
		}
	}
}
