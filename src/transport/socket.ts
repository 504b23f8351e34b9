/**
 * The border between the broker and the runtimes: bytes in, bytes out, backpressure. Everything above sees a byte stream
 * and cannot tell WebSocket from TCP or Bun from Deno. Implementations: `bun.ts`, `deno.ts`, `tcp.ts`.
 */

/** What is known of the peer before its first byte. */
export interface PeerInfo {
	readonly transport: "ws" | "wss" | "tcp" | "tls";
	/**
	 * Textual IP address of the client, canonical (`127.0.0.1`, not `::ffff:127.0.0.1`). Behind proxies that are trusted it is
	 * the one that they tell.
	 */
	readonly address: string;
	/** Port of the client, or of the proxy where that does not tell. */
	readonly port: number;
	/** Address of the proxy, where `address` is not that of the socket. */
	readonly socketAddress?: string;
	/** Host header of the upgrade request, where the door keeps it. Clients write what they like there. */
	readonly host?: string;
	/** Upgrade request, for WebSocket only, until `forgetRequest`. Without the places where a token may be. */
	readonly request?: { readonly url: string; readonly headers: Headers };
	/** Token that came with the upgrade request, not checked, until `forgetRequest`. A secret: never to be logged. */
	readonly token?: string;
	/** Verified client certificate: of TLS with mutual authentication, or from a proxy that is trusted. */
	readonly certificate?: ClientCertificate;
}

export interface ClientCertificate {
	/** Subject common name. */
	readonly commonName: string | undefined;
	/** Subject in one line, such as `CN=device-1,O=Example`. */
	readonly subject: string;
	readonly issuer: string;
	readonly serialNumber: string;
	/** SHA-256 fingerprint in lower-case hex without separators. */
	readonly fingerprint256: string;
	readonly subjectAltName: string | undefined;
}

/** Why a socket is closed, from which each transport makes its own close (WebSocket close code, FIN, RST). */
export type CloseKind =
	/** After a normal exchange: WebSocket 1000. */
	| "normal"
	/** The peer broke the protocol: WebSocket 1002. */
	| "protocolError"
	/** A text frame: WebSocket 1003. */
	| "unsupportedData"
	/** Refused or revoked: WebSocket 1008. */
	| "policy"
	/** Packet over the limit: WebSocket 1009. */
	| "tooLarge"
	/** The server goes away, come back: WebSocket 1012. */
	| "restart"
	/** Try later: WebSocket 1013. */
	| "busy";

export interface Socket {
	readonly peer: PeerInfo;
	/**
	 * Sends bytes, as one WebSocket frame where there are frames. The bytes are copied or written before it returns: the
	 * caller may reuse the buffer. MUST NOT lose a part of what it accepts while the connection lives: `dropped` means that
	 * nothing of it was taken and the stream is broken, so the caller closes.
	 */
	send(bytes: Uint8Array): "sent" | "queued" | "dropped";
	/** Bytes accepted by `send` and not yet handed to the operating system, as far as the runtime tells. */
	readonly bufferedAmount: number;
	/** Stops (or resumes) reading, everywhere but on the WebSocket of a foreign `Deno.serve`. Bytes read already still arrive. */
	pause(): void;
	resume(): void;
	/** The upgrade request and its token are not needed any more: headers would be the largest part of an idle connection. */
	forgetRequest(): void;
	/** WebSocket ping against idle proxies; nothing on TCP, and nothing where the runtime sends pings itself. */
	ping(): void;
	/** Closes in order: what was sent before still goes out. `onClose` follows. Safe to call twice. */
	close(kind: CloseKind): void;
	/** Drops the connection at once, with whatever is queued. `onClose` follows. Safe to call twice. */
	terminate(): void;
}

/** The broker's side of one socket. Calls come one at a time, in order, and none after `onClose`. */
export interface SocketHandler {
	/** Bytes arrived. The view is the receiver's to keep: it is never written again. */
	onData(bytes: Uint8Array): void;
	/** A text frame arrived, which MQTT forbids [MQTT-6.0.0-1]. */
	onText(): void;
	/** `bufferedAmount` went back to (nearly) 0 after `send` had answered `queued`. */
	onDrain(): void;
	/** The connection is gone, exactly once, whoever ended it. */
	onClose(): void;
}

/** Called for each accepted connection; answers the handler, or `undefined` to refuse (the transport then closes with `busy`). */
export type Accept = (socket: Socket) => SocketHandler | undefined;

/** A listening server. */
export interface Listener {
	readonly port: number;
	readonly hostname: string;
	/** Stops accepting; connections stay. */
	stop(): Promise<void>;
}
