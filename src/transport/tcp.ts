/**
 * MQTT over TCP and TLS, on `node:net` and `node:tls` of either runtime. The only listener that can tell who a client is by
 * its certificate. Knows sockets only.
 */

import { createServer as createTcpServer, type Socket as NodeSocket, type Server } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { log } from "../log.ts";
import { AddressList, canonicalAddress } from "./address.ts";
import { ByteStream } from "./byte_stream.ts";
import { type TlsSettings, tlsOptions, verifiedIdentity } from "./certificate.ts";
import { Door } from "./door.ts";
import { HANDSHAKE_MS, listen } from "./listen.ts";
import { type ProxiedClient, receiveProxyHeader } from "./proxy_protocol.ts";
import type { Accept, CloseKind, Listener, PeerInfo, Socket, SocketHandler } from "./socket.ts";

const logger = log("transport");

export interface TcpOptions {
	readonly hostname: string;
	/** 0 takes any free port. */
	readonly port: number;
	/** Present: TLS. */
	readonly tls?: TlsSettings;
	/** For the TLS handshake, with the header of the PROXY protocol before it. Default `HANDSHAKE_MS`. */
	readonly handshakeMs?: number;
	/** Every connection must begin with a header of the PROXY protocol, version 1 or 2. */
	readonly proxyProtocol?: boolean;
	/** Networks in which the proxies are that may connect then, such as `10.0.0.0/8`. Default: everybody may, as if he were one. */
	readonly proxySources?: readonly string[];
	/** Judges who may come in; the same for all listeners. Default: one that lets everybody in. */
	readonly door?: Door;
}

/** Accepts connections on a port. Rejects with an Error that names the remedy when it cannot listen. */
export function listenTcp(options: TcpOptions, accept: Accept): Promise<Listener> {
	const { tls, door = new Door(), handshakeMs = HANDSHAKE_MS } = options;
	if (options.proxyProtocol) return listen(behindProxy(options, door, handshakeMs, accept), options);
	const admit = (stream: NodeSocket): boolean => {
		const admitted = door.admits(canonicalAddress(stream.remoteAddress ?? ""));
		if (!admitted) drop(stream);
		return admitted;
	};
	if (!tls) {
		return listen(
			createTcpServer((stream) => void (admit(stream) && open(stream, "tcp", peerOf(stream), accept))),
			options,
		);
	}
	const server = createTls(tls, handshakeMs, (stream, certificate) => open(stream, "tls", { ...peerOf(stream), ...certificate }, accept));
	// Before the handshake, which costs more than all the rest of a connection.
	server.prependListener("connection", admit);
	return listen(server, options);
}

type Origin = Omit<PeerInfo, "transport">;
/** Takes a connection that is ready for MQTT. */
type Finish = (stream: NodeSocket, certificate: Pick<PeerInfo, "certificate">) => void;

/** A TLS server for connections from a port, or from its event `connection`. */
function createTls(tls: TlsSettings, handshakeMs: number, onSecure: Finish): Server {
	const server = createTlsServer(tlsOptions(tls, handshakeMs), (stream) => {
		const certificate = verifiedIdentity(stream, tls.clientCertificate);
		if (certificate === "refused") drop(stream);
		else onSecure(stream, certificate ? { certificate } : {});
	});
	// A handshake that failed or took too long leaves its socket to whoever listens here.
	server.on("tlsClientError", (error, stream) => {
		logger.debug("TLS handshake failed", { address: canonicalAddress(stream.remoteAddress ?? ""), error: error.message });
		stream.destroy();
	});
	return server;
}

/** A server whose connections tell first who is behind them, before TLS where there is TLS. */
function behindProxy(options: TcpOptions, door: Door, handshakeMs: number, accept: Accept): Server {
	const { tls } = options;
	const sources = options.proxySources && new AddressList(options.proxySources);
	/** By the proxy's end of the connection: a TLS stream does not tell on which connection it is. */
	const finishing = new Map<string, Finish>();
	const tlsServer =
		tls &&
		createTls(tls, handshakeMs, (stream, certificate) => {
			const finish = finishing.get(endOf(stream));
			if (finish) finish(stream, certificate);
			else drop(stream);
		});
	return createTcpServer((raw) => {
		const proxy = peerOf(raw);
		const end = endOf(raw);
		raw.on("error", ignore);
		if (sources && !sources.has(proxy.address)) {
			door.refused("proxySource");
			drop(raw);
			return;
		}
		let finish: Finish | undefined;
		const settled = () => {
			clearTimeout(deadline);
			if (finishing.get(end) === finish) finishing.delete(end);
		};
		const deadline = setTimeout(() => drop(raw), handshakeMs);
		raw.on("close", settled);
		const onHeader = (client: ProxiedClient | undefined) => {
			const origin = client ? { ...client, socketAddress: proxy.address } : proxy;
			finish = (stream, certificate) => {
				settled();
				open(stream, tls ? "tls" : "tcp", { ...origin, ...certificate }, accept);
			};
			if (!door.admits(origin.address)) drop(raw);
			else if (tlsServer) {
				finishing.set(end, finish);
				// A flowing stream would lose what came right behind the header before TLS asks for it.
				raw.pause();
				tlsServer.emit("connection", raw);
			} else finish(raw, {});
		};
		receiveProxyHeader(raw, onHeader, (problem) => {
			door.refused("proxyHeader");
			logger.debug("No header of the PROXY protocol", { address: proxy.address, problem });
			drop(raw);
		});
	});
}

function peerOf(stream: NodeSocket): Origin {
	return { address: canonicalAddress(stream.remoteAddress ?? ""), port: stream.remotePort ?? 0 };
}

function endOf(stream: NodeSocket): string {
	return `${stream.remoteAddress} ${stream.remotePort}`;
}

/** Ends a connection that nobody has. */
function drop(stream: NodeSocket): void {
	stream.on("error", ignore);
	stream.destroy();
}

function ignore(): void {
	// "close" follows, and is what counts.
}

function open(stream: NodeSocket, transport: "tcp" | "tls", origin: Origin, accept: Accept): void {
	new StreamSocket(stream, { transport, ...origin }, accept);
}

class StreamSocket implements Socket {
	readonly peer: PeerInfo;
	readonly #stream: ByteStream;

	constructor(stream: NodeSocket, peer: PeerInfo, accept: Accept) {
		this.peer = peer;
		let handler: SocketHandler | undefined;
		this.#stream = new ByteStream(stream, {
			onData: (chunk) => handler?.onData(chunk),
			onDrain: () => handler?.onDrain(),
			onClose: () => handler?.onClose(),
		});
		handler = accept(this);
		if (!handler) this.close("busy");
	}

	send(bytes: Uint8Array): "sent" | "queued" | "dropped" {
		// The runtimes keep a reference to what the kernel did not take, and the caller may reuse its buffer.
		const copy = Buffer.allocUnsafe(bytes.length);
		copy.set(bytes);
		return this.#stream.write(copy);
	}

	get bufferedAmount(): number {
		return this.#stream.bufferedAmount;
	}

	pause(): void {
		this.#stream.pause();
	}

	resume(): void {
		this.#stream.resume();
	}

	forgetRequest(): void {
		// There is none.
	}

	ping(): void {
		// TCP has none.
	}

	close(_kind: CloseKind): void {
		this.#stream.end();
	}

	terminate(): void {
		this.#stream.terminate();
	}
}
