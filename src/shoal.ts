/**
 * Shoal as a library: a whole broker from a configuration, with its HTTP app, publishing and subscribing within the process,
 * and a life from `start` to `stop`. Puts the parts together and knows nothing that they do.
 */

import process from "node:process";
import type { Hono } from "hono";
import manifest from "../package.json" with { type: "json" };
import type { Authenticator, Authorizer } from "./auth/auth.ts";
import { Broker, type LocalSubscription, type PublishOptions } from "./broker/broker.ts";
import type { MessageHandler } from "./broker/local_subscriber.ts";
import { type Config, createConfig } from "./config.ts";
import { createApp } from "./http/app.ts";
import { createMetricsPage, type RedisFigures } from "./http/metrics_page.ts";
import { log } from "./log.ts";
import { countByCode, EventLoopLag, Metrics } from "./metrics.ts";
import type { ChannelLimits } from "./session/effects.ts";
import { configuredAuth } from "./setup/auth.ts";
import { readCertificates } from "./setup/certificates.ts";
import { embeddedStore, makeDataDir, redisCluster } from "./setup/cluster.ts";
import { configuredDoor } from "./setup/door.ts";
import { adminApi, managedAuth } from "./setup/managed.ts";
import type { SharedStore } from "./store/store.ts";
import { createRuntimeAdapter, runtimeName } from "./transport/runtime.ts";
import type { Listener, PeerInfo } from "./transport/socket.ts";
import { listenTcp } from "./transport/tcp.ts";

export type { Access, AuthExchange, Authenticator, AuthOutcome, Authorizer, Credentials, Principal } from "./auth/auth.ts";
export type { LocalSubscription, PublishOptions } from "./broker/broker.ts";
export type { MessageHandler } from "./broker/local_subscriber.ts";
export { type Config, ConfigError, configHelp, createConfig, parseConfig } from "./config.ts";
export { configureLog, log } from "./log.ts";
export type { Message } from "./mqtt/message.ts";
export { StoreError } from "./store/store.ts";

/** Version of this package. */
export const VERSION: string = manifest.version;

/** Parts that a program may bring itself. */
export interface ShoalParts {
	readonly authenticator?: Authenticator;
	readonly authorizer?: Authorizer;
}

/** One broker. */
export interface Shoal {
	readonly config: Config;
	/** The HTTP app: `/mqtt`, `/healthz`, `/readyz`. Can be mounted in another Hono app; see `websocket`. */
	readonly app: Hono;
	/** For a `Bun.serve` of one's own that serves `app`: its `websocket`. `undefined` on Deno. */
	readonly websocket: unknown;
	readonly metrics: Metrics;
	/** Whether clients may come. */
	readonly ready: boolean;
	/** Clients and others that are connected. */
	readonly connections: number;
	/** Opens the store; `app` works from then on. Rejects with an Error that says what to do. */
	start(): Promise<void>;
	/** Opens the configured ports. */
	listen(): Promise<readonly ListeningPort[]>;
	publish(topic: string, payload: Uint8Array | string, options?: PublishOptions): Promise<void>;
	subscribe(filter: string, handler: MessageHandler): Promise<LocalSubscription>;
	/** Says that it is not ready, and sends the clients away after the notice, over the given time. */
	drain(seconds: number, noticeSeconds?: number): Promise<void>;
	/** Closes ports, connections and the store; all state is stored when it resolves. */
	stop(): Promise<void>;
}

/** A port that is open. */
export interface ListeningPort {
	readonly transport: PeerInfo["transport"];
	readonly hostname: string;
	readonly port: number;
}

/**
 * Makes a broker; nothing happens before `start`.
 * @throws ConfigError when the configuration is not valid.
 */
export function createBroker(partial: Partial<Config> = {}, parts: ShoalParts = {}): Shoal {
	const config = createConfig(partial);
	const logger = log("shoal");
	const metrics = new Metrics();
	const lag = new EventLoopLag();
	const cluster = redisCluster(config, (session) => broker.sessionLost(session));
	const store = cluster?.store ?? embeddedStore(config);
	const managed = managedAuth(store.records);
	const { revocations } = managed;
	const door = configuredDoor(config, metrics, (address) => revocations.isBanned(address));
	const auth = configuredAuth(config, managed);
	const adapter = createRuntimeAdapter({
		maxPacketSize: config.maxPacketSize,
		maxBufferedBytes: config.maxBufferedBytes,
		pingSeconds: config.wsPingSeconds,
		compression: config.wsCompression,
		requireSubprotocol: config.wsRequireSubprotocol,
		door,
	});
	const broker: Broker = new Broker({
		store,
		cluster,
		onStoreOpen: managed.start,
		maxWaitingBytes: config.maxWaitingBytes,
		metrics,
		authenticator: parts.authenticator ?? auth.authenticator,
		authorizer: parts.authorizer ?? auth.authorizer,
		revocations,
		limits: channelLimits(config),
		version: VERSION,
		maxConnections: config.maxConnections,
		maxConnectionMs: config.maxConnectionMinutes * 60_000,
		maxBufferedBytes: config.maxBufferedBytes,
		maxHeldMessages: config.maxQueuedMessages,
		pingSeconds: config.wsPingSeconds,
		stallTimeoutSeconds: config.stallTimeoutSeconds,
		framePerPacket: config.mqttPiggyback === "single",
		copyPayloadsUpTo: adapter.copyUpTo,
		sysIntervalSeconds: config.sysIntervalSeconds,
	});
	const metricsPage = (token: string | undefined) =>
		createMetricsPage(
			{
				metrics,
				build: { version: VERSION, runtime: runtimeName(), ...placeOfMachine() },
				ready: () => broker.ready,
				connections: () => broker.connections,
				lag,
				store: () => broker.stats(),
				...(cluster !== undefined && { redis: redisFigures(cluster.store) }),
			},
			{ token },
		);
	const { metricsToken } = config;
	const app = createApp({
		path: config.wsPath,
		upgrade: (request, env) => (broker.open ? adapter.upgrade(request, env, broker.accept) : goneAway()),
		ready: () => broker.ready,
		onUpgradeRefused: (status) => countByCode(metrics.upgradesRefused, status),
		metricsPage: metricsToken === undefined ? undefined : metricsPage(metricsToken),
		admin: () => admin,
	});
	let admin: Hono | undefined;
	revocations.onBanned(() => broker.refuseAddresses((address) => revocations.isBanned(address)));
	const listeners: Listener[] = [];

	async function listen(): Promise<readonly ListeningPort[]> {
		const { host } = config;
		const fetch = (request: Request, env: unknown) => app.fetch(request, env as object);
		const open: ListeningPort[] = [];
		const add = (transport: PeerInfo["transport"], listener: Listener) => {
			listeners.push(listener);
			open.push({ transport, hostname: listener.hostname, port: listener.port });
			logger.info("Listening", { transport, hostname: listener.hostname, port: listener.port });
		};
		const tls = await readCertificates(config);
		add("ws", await adapter.serve({ hostname: host, port: config.port, fetch }));
		if (config.wssPort !== undefined && tls !== undefined) {
			add(
				"wss",
				await adapter.serve({
					hostname: host,
					port: config.wssPort,
					tls: { ...tls, clientCertificate: config.wssClientCertificate },
					fetch,
				}),
			);
		}
		const tcp = {
			hostname: host,
			door,
			handshakeMs: config.connectTimeoutSeconds * 1000,
			proxyProtocol: config.proxyProtocol,
			...(config.proxyProtocolSources.length > 0 && { proxySources: config.proxyProtocolSources }),
		};
		if (config.mqttTcpPort !== undefined) add("tcp", await listenTcp({ ...tcp, port: config.mqttTcpPort }, broker.accept));
		if (config.mqttTlsPort !== undefined && tls !== undefined) {
			const clientCertificate = config.tlsClientCertificate;
			add("tls", await listenTcp({ ...tcp, port: config.mqttTlsPort, tls: { ...tls, clientCertificate } }, broker.accept));
		}
		if (config.metricsPort !== undefined) {
			const listener = await adapter.serve({ hostname: host, port: config.metricsPort, fetch: metricsPage(metricsToken) });
			listeners.push(listener);
			logger.info("Metrics are served", { hostname: listener.hostname, port: listener.port });
		}
		return open;
	}

	return {
		config,
		app,
		websocket: adapter.websocket,
		metrics: broker.metrics,
		get ready() {
			return broker.ready;
		},
		get connections() {
			return broker.connections;
		},
		async start() {
			if (cluster === undefined && config.store === "sqlite") await makeDataDir(config.dataDir);
			await auth.start();
			await broker.start();
			admin = adminApi(config, managed, { broker, auth, version: VERSION, addressOf: adapter.addressOf });
			lag.start();
		},
		listen,
		publish: (topic, payload, options) => broker.publish(topic, payload, options),
		subscribe: (filter, handler) => broker.subscribe(filter, handler),
		drain: (seconds, noticeSeconds) => broker.drain(seconds, noticeSeconds),
		async stop() {
			await broker.drain(0);
			await Promise.all(listeners.splice(0).map((listener) => listener.stop()));
			await broker.stop();
			lag.stop();
			managed.stop();
			auth.stop();
		},
	};
}

function redisFigures(store: SharedStore): RedisFigures {
	return {
		roundTrip: store.roundTrip,
		reconnects: () => store.reconnects,
		replicas: () => store.replicas,
		awaySeconds: () => store.awayMs / 1000,
	};
}

/** Where this machine is, as platforms tell. */
function placeOfMachine(): { readonly region?: string; readonly machine?: string } {
	const { FLY_REGION, FLY_MACHINE_ID } = process.env;
	return { ...(FLY_REGION && { region: FLY_REGION }), ...(FLY_MACHINE_ID && { machine: FLY_MACHINE_ID }) };
}

/** Behind a proxy that knows what 503 means the client is at another replica at once. */
function goneAway(): Response {
	return new Response("The server restarts: connect again\n", { status: 503, headers: { "Retry-After": "1" } });
}

function channelLimits(config: Config): ChannelLimits {
	return {
		connectTimeoutSeconds: config.connectTimeoutSeconds,
		maxPacketSize: config.maxPacketSize,
		maxTopicLevels: config.maxTopicLevels,
		maxSubscriptions: config.maxSubscriptions,
		receiveMaximum: config.receiveMaximum,
		maxInflight: config.maxInflight,
		maxInflightBytes: config.maxBufferedBytes,
		maxQueuedMessages: config.maxQueuedMessages,
		maxKeepAliveSeconds: config.maxKeepAliveSeconds,
		maxSessionExpirySeconds: config.maxSessionExpirySeconds,
		topicAliasMaximum: config.topicAliasMaximum,
		publishRate: config.publishRate,
		publishBurst: config.publishBurst,
		responseInformation: config.responseInformation,
	};
}
