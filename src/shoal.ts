/**
 * Shoal as a library: a whole broker from a configuration, with its HTTP app, publishing and subscribing within the process,
 * and a life from `start` to `stop`. Puts the parts together and knows nothing that they do.
 */

import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Hono } from "hono";
import manifest from "../package.json" with { type: "json" };
import { allowEverything, anonymousAuthenticator } from "./auth/anonymous.ts";
import type { Authenticator, Authorizer } from "./auth/auth.ts";
import { Broker, type LocalSubscription, type PublishOptions } from "./broker/broker.ts";
import type { MessageHandler } from "./broker/local_subscriber.ts";
import { type Config, createConfig } from "./config.ts";
import { createApp } from "./http/app.ts";
import { log } from "./log.ts";
import { countByCode, type Metrics } from "./metrics.ts";
import type { ChannelLimits } from "./session/effects.ts";
import { createEmbeddedStore } from "./store/embedded_store.ts";
import { createRuntimeAdapter } from "./transport/runtime.ts";
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
	/** Sends the clients away, over the given time. */
	drain(seconds: number): Promise<void>;
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
	const adapter = createRuntimeAdapter({
		maxPacketSize: config.maxPacketSize,
		maxBufferedBytes: config.maxBufferedBytes,
		pingSeconds: config.wsPingSeconds,
		compression: config.wsCompression,
		requireSubprotocol: config.wsRequireSubprotocol,
	});
	const broker = new Broker({
		store: createEmbeddedStore({
			path: config.store === "memory" ? ":memory:" : join(config.dataDir, "shoal.sqlite"),
			sync: config.storeSync,
			limits: { logMaxMessages: config.logMaxMessages, maxRetained: config.maxRetainedMessages },
			onError: (error) => logger.error("The store reports an error", { error: error.message }),
		}),
		authenticator: parts.authenticator ?? defaultAuthenticator(config),
		authorizer: parts.authorizer ?? allowEverything,
		limits: channelLimits(config),
		version: VERSION,
		maxConnections: config.maxConnections,
		maxBufferedBytes: config.maxBufferedBytes,
		maxHeldMessages: config.maxQueuedMessages,
		pingSeconds: config.wsPingSeconds,
		stallTimeoutSeconds: config.stallTimeoutSeconds,
		framePerPacket: config.mqttPiggyback === "single",
		copyPayloadsUpTo: adapter.copyUpTo,
		sysIntervalSeconds: config.sysIntervalSeconds,
	});
	const app = createApp({
		path: config.wsPath,
		upgrade: (request, env) => adapter.upgrade(request, env, broker.accept),
		ready: () => broker.ready,
		onUpgradeRefused: (status) => countByCode(broker.metrics.upgradesRefused, status),
	});
	const listeners: Listener[] = [];

	async function listen(): Promise<readonly ListeningPort[]> {
		const { host: hostname } = config;
		const fetch = (request: Request, env: unknown) => app.fetch(request, env as object);
		const open: ListeningPort[] = [];
		const add = (transport: PeerInfo["transport"], listener: Listener) => {
			listeners.push(listener);
			open.push({ transport, hostname: listener.hostname, port: listener.port });
			logger.info("Listening", { transport, hostname: listener.hostname, port: listener.port });
		};
		const tls = await readCertificates(config);
		add("ws", await adapter.serve({ hostname, port: config.port, fetch }));
		if (config.wssPort !== undefined && tls !== undefined) {
			add("wss", await adapter.serve({ hostname, port: config.wssPort, tls: { cert: tls.cert, key: tls.key }, fetch }));
		}
		if (config.mqttTcpPort !== undefined) add("tcp", await listenTcp({ hostname, port: config.mqttTcpPort }, broker.accept));
		if (config.mqttTlsPort !== undefined && tls !== undefined) {
			const clientCertificate = config.tlsClientCertificate;
			add("tls", await listenTcp({ hostname, port: config.mqttTlsPort, tls: { ...tls, clientCertificate } }, broker.accept));
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
			if (config.store === "sqlite") await makeDataDir(config.dataDir);
			await broker.start();
		},
		listen,
		publish: (topic, payload, options) => broker.publish(topic, payload, options),
		subscribe: (filter, handler) => broker.subscribe(filter, handler),
		drain: (seconds) => broker.drain(seconds),
		async stop() {
			await broker.drain(0);
			await Promise.all(listeners.splice(0).map((listener) => listener.stop()));
			await broker.stop();
		},
	};
}

/** Nobody from elsewhere gets in unless that is configured; the log says so once for each kind of surprise. */
function defaultAuthenticator(config: Config): Authenticator {
	const logger = log("auth");
	let told = false;
	return anonymousAuthenticator({
		allowAll: config.allowAnonymous,
		onRefused: (address) => {
			if (told) return;
			told = true;
			logger.warn(
				"A client from elsewhere was refused, since without authentication only this machine may connect; ALLOW_ANONYMOUS=true lets everybody in",
				{ address },
			);
		},
	});
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

async function makeDataDir(path: string): Promise<void> {
	try {
		await mkdir(path, { recursive: true });
	} catch (error) {
		const remedy = "Name a folder that can be written to, or set STORE=memory";
		throw new Error(`Cannot make DATA_DIR "${path}": ${(error as Error).message}. ${remedy}`, { cause: error });
	}
}

async function readCertificates(config: Config): Promise<{ cert: string; key: string; ca?: string } | undefined> {
	const { tlsCertFile, tlsKeyFile, tlsCaFile } = config;
	if (tlsCertFile === undefined || tlsKeyFile === undefined) return undefined;
	const certificate = await readPem("TLS_CERT_FILE", tlsCertFile, (pem) => new X509Certificate(pem));
	const key = await readPem("TLS_KEY_FILE", tlsKeyFile, createPrivateKey);
	const ca = tlsCaFile === undefined ? undefined : await readPem("TLS_CA_FILE", tlsCaFile, (pem) => new X509Certificate(pem));
	if (!certificate.parsed.checkPrivateKey(key.parsed)) {
		throw new Error(
			`The key in TLS_KEY_FILE "${tlsKeyFile}" is not that of the certificate in TLS_CERT_FILE "${tlsCertFile}". Name a pair`,
		);
	}
	return { cert: certificate.pem, key: key.pem, ...(ca !== undefined && { ca: ca.pem }) };
}

/** Looks into the file as well: Deno opens a port with anything for a certificate, and then every handshake fails. */
async function readPem<T>(variable: string, path: string, parse: (pem: string) => T): Promise<{ pem: string; parsed: T }> {
	try {
		const pem = await readFile(path, "utf8");
		return { pem, parsed: parse(pem) };
	} catch (error) {
		throw new Error(`Cannot read ${variable} "${path}": ${(error as Error).message}. Name a readable PEM file`, { cause: error });
	}
}
