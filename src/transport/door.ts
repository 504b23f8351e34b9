/**
 * Who may come in at all, before MQTT has a word: how often, from which web pages, and who it really is behind proxies. One
 * door for all listeners of a broker, so that its limits hold for all of them together. Knows no runtime.
 */

import type { DoorReason } from "../metrics.ts";
import { AddressList, canonicalAddress } from "./address.ts";
import { certificateFromHeader } from "./certificate.ts";
import { ConnectRate, type Rate } from "./connect_rate.ts";
import { type ForwardedAddress, forwardedAddress, type TrustedProxies } from "./forwarded.ts";
import { type OriginCheck, originCheck } from "./origins.ts";
import type { ClientCertificate, PeerInfo } from "./socket.ts";
import { decideUpgrade, type UpgradeDecision } from "./upgrade.ts";
import { type TokenSources, takeToken } from "./upgrade_token.ts";

/** Everything is off unless it is given. */
export interface DoorOptions {
	/** Refuses upgrades of pages of other origins, see `originCheck`. Without an Origin header it is no page: allowed. */
	readonly origins?: readonly string[];
	/** Connections of one IPv4 address, or one /64 of IPv6. Behind proxies only together with `trustedProxies`. */
	readonly ratePerAddress?: Rate;
	readonly rateTotal?: Rate;
	/** Proxies in front of HTTP and WebSocket. */
	readonly trustedProxies?: TrustedProxies;
	/** Header in which these proxies put a certificate that they have checked, see `certificateFromHeader`. Needs `trustedProxies.from`. */
	readonly certificateHeader?: string;
	readonly token?: TokenSources;
	/** Keeps the Host header of an upgrade request for as long as the connection lives. */
	readonly keepHost?: boolean;
	/** Whether nobody from there may come. @param address Canonical. */
	readonly isBanned?: (address: string) => boolean;
	/** Called for each refusal. */
	readonly onRefused?: (reason: DoorReason) => void;
}

/** The connection on which an upgrade request came. */
export interface Arrival {
	/** As the runtime reports it. */
	readonly address: string;
	readonly port: number;
	/** Checked by our own TLS. */
	readonly certificate?: ClientCertificate | undefined;
}

type Refusal = UpgradeDecision & { readonly kind: "refuse" };

export class Door {
	readonly #options: DoorOptions;
	readonly #rate: ConnectRate | undefined;
	readonly #allowsOrigin: OriginCheck | undefined;
	readonly #forwarded: ForwardedAddress | undefined;
	readonly #believed: AddressList | undefined;
	readonly #nowMs: () => number;

	/** @throws {TypeError} that says which option cannot be meant */
	constructor(options: DoorOptions = {}, nowMs: () => number = () => performance.now()) {
		const { ratePerAddress, rateTotal, origins, trustedProxies, certificateHeader } = options;
		if (certificateHeader !== undefined && trustedProxies?.from === undefined) {
			throw new TypeError(`Anybody could send "${certificateHeader}": name the networks of the proxies that may, in "trustedProxies.from"`);
		}
		this.#options = options;
		this.#nowMs = nowMs;
		if (ratePerAddress || rateTotal) this.#rate = new ConnectRate(ratePerAddress, rateTotal);
		if (origins) this.#allowsOrigin = originCheck(origins);
		if (trustedProxies) this.#forwarded = forwardedAddress(trustedProxies);
		if (trustedProxies?.from) this.#believed = new AddressList(trustedProxies.from);
	}

	/** Whether a connection without HTTP may come now; counted when not. @param address Canonical. */
	admits(address: string): boolean {
		if (this.#options.isBanned?.(address)) {
			this.refused("banned");
			return false;
		}
		const tooMany = this.#rate?.take(address, this.#nowMs());
		if (tooMany) this.refused(tooMany.whose === "address" ? "rateAddress" : "rateTotal");
		return tooMany === undefined;
	}

	/** Where a request comes from, as far as proxies that are trusted tell. */
	addressOf(headers: Headers, socketAddress: string): string {
		const canonical = canonicalAddress(socketAddress);
		return this.#forwarded?.(headers, canonical) ?? canonical;
	}

	/** Counts a refusal that a listener has decided itself. */
	refused(reason: DoorReason): void {
		this.#options.onRefused?.(reason);
	}

	/**
	 * Judges an upgrade request: the cheapest question first, for a flood has to cost less than what it floods.
	 *
	 * @returns The peer, and the subprotocol to answer; or the refusal.
	 */
	judge(
		request: { readonly method: string; readonly url: string; readonly headers: Headers },
		arrival: Arrival,
		options: { readonly requireSubprotocol: boolean },
	): { readonly kind: "accept"; readonly protocol: string | undefined; readonly peer: PeerInfo } | Refusal {
		const socketAddress = canonicalAddress(arrival.address);
		const address = this.addressOf(request.headers, socketAddress);
		if (this.#options.isBanned?.(address)) {
			this.refused("banned");
			return { kind: "refuse", status: 403, message: "Nobody may connect from this address", headers: {} };
		}
		const tooMany = this.#rate?.take(address, this.#nowMs());
		if (tooMany) {
			this.refused(tooMany.whose === "address" ? "rateAddress" : "rateTotal");
			const headers = { "Retry-After": String(Math.ceil(tooMany.waitMs / 1000)) };
			return { kind: "refuse", status: 429, message: "Too many connections: try again later", headers };
		}
		const decision = decideUpgrade(request, options);
		if (decision.kind === "refuse") return decision;
		const origin = request.headers.get("origin");
		if (origin !== null && this.#allowsOrigin?.(origin) === false) {
			this.refused("origin");
			return { kind: "refuse", status: 403, message: "Pages of this origin may not connect", headers: {} };
		}
		return { ...decision, peer: this.#peer(request, arrival, address, socketAddress) };
	}

	#peer(request: { readonly url: string; readonly headers: Headers }, arrival: Arrival, address: string, socketAddress: string): PeerInfo {
		// A copy of the headers in either case: those of a runtime's own request are void after the upgrade.
		const { token, request: kept } = takeToken(request, this.#options.token ?? {});
		const certificate = arrival.certificate ?? this.#certificate(request.headers, socketAddress);
		const host = this.#options.keepHost ? request.headers.get("host") : null;
		return {
			transport: request.url.startsWith("https:") ? "wss" : "ws",
			address,
			port: arrival.port,
			request: kept,
			...(address === socketAddress ? {} : { socketAddress }),
			...(token === undefined ? {} : { token }),
			...(certificate === undefined ? {} : { certificate }),
			...(host === null ? {} : { host }),
		};
	}

	#certificate(headers: Headers, socketAddress: string): ClientCertificate | undefined {
		const { certificateHeader } = this.#options;
		if (certificateHeader === undefined || !this.#believed?.has(socketAddress)) return undefined;
		return certificateFromHeader(headers.get(certificateHeader) ?? "");
	}
}
