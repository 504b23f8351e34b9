/** A way to Redis that can lose what the server answers: the commands are done, and nobody learns it. */

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export class LossyProxy {
	readonly #server: Server;
	readonly #pairs = new Set<readonly [client: Socket, upstream: Socket]>();
	#losing = false;

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
		client.on("data", (data) => upstream.write(data));
		upstream.on("data", (data) => {
			if (!this.#losing) client.write(data);
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
