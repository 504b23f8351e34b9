import type { ServeOptions } from "../../src/transport/adapter.ts";
import { createRuntimeAdapter } from "../../src/transport/runtime.ts";
import type { Accept } from "../../src/transport/socket.ts";
import { listenTcp } from "../../src/transport/tcp.ts";
import { socketContract } from "../contracts/socket_contract.ts";
import { createAuthority } from "../support/certificates.ts";
import { streamClient, webSocketClient } from "../support/contract_clients.ts";

const HOST = { hostname: "127.0.0.1", port: 0 };
const authority = createAuthority();
const server = authority.server();
const trust = { ca: [authority.cert] };
/** What a proxy writes that stands on the client's own machine. */
const preamble = (localPort: number) => `PROXY TCP4 127.0.0.1 127.0.0.1 ${localPort} 1883\r\n`;

function serve(accept: Accept, tls?: NonNullable<ServeOptions["tls"]>) {
	const adapter = createRuntimeAdapter({
		maxPacketSize: 1_048_576,
		maxBufferedBytes: 16_777_216,
		pingSeconds: 0,
		compression: false,
		requireSubprotocol: true,
	});
	return adapter.serve({ ...HOST, ...(tls ? { tls } : {}), fetch: (request, env) => adapter.upgrade(request, env, accept) });
}

socketContract("ws", { transport: "ws", stops: true, pauses: true, terminates: true }, async (accept) => {
	const listener = await serve(accept);
	return { listener, connect: () => webSocketClient({ port: listener.port }) };
});

socketContract("wss", { transport: "wss", stops: true, pauses: true, terminates: true }, async (accept) => {
	const listener = await serve(accept, server);
	return { listener, connect: () => webSocketClient({ port: listener.port, tls: trust }) };
});

socketContract("tcp", { transport: "tcp", stops: true, pauses: true, terminates: true }, async (accept) => {
	const listener = await listenTcp(HOST, accept);
	return { listener, connect: () => streamClient({ port: listener.port }) };
});

socketContract("tls", { transport: "tls", stops: true, pauses: true, terminates: true }, async (accept) => {
	const listener = await listenTcp({ ...HOST, tls: { ...server, clientCertificate: "none" } }, accept);
	return { listener, connect: () => streamClient({ port: listener.port, tls: trust }) };
});

socketContract("wss with client certificates", { transport: "wss", stops: true, pauses: true, terminates: true }, async (accept) => {
	const listener = await serve(accept, { ...server, ca: authority.cert, clientCertificate: "request" });
	return { listener, connect: () => webSocketClient({ port: listener.port, tls: trust }) };
});

socketContract("tcp behind a proxy", { transport: "tcp", stops: true, pauses: true, terminates: true }, async (accept) => {
	const listener = await listenTcp({ ...HOST, proxyProtocol: true }, accept);
	return { listener, connect: () => streamClient({ port: listener.port, preamble }) };
});

socketContract("tls behind a proxy", { transport: "tls", stops: true, pauses: true, terminates: true }, async (accept) => {
	const listener = await listenTcp({ ...HOST, proxyProtocol: true, tls: { ...server, clientCertificate: "none" } }, accept);
	return { listener, connect: () => streamClient({ port: listener.port, tls: trust, preamble }) };
});
