/** The door of the configuration: who may knock, from where, and how it is known where somebody comes from. */

import type { Config } from "../config.ts";
import type { Metrics } from "../metrics.ts";
import { Door } from "../transport/door.ts";

/** Connections that one second's rate may come at once. */
const BURST_SECONDS = 2;

/** @throws TypeError that names the setting that cannot be meant. */
export function configuredDoor(config: Config, metrics: Metrics, isBanned: (address: string) => boolean): Door {
	const { allowedOrigins, clientCertificateHeader, tokenHeader, tokenCookie, tokenQuery } = config;
	const rate = (perSecond: number) => (perSecond === 0 ? undefined : { perSecond, burst: perSecond * BURST_SECONDS });
	const ratePerAddress = rate(config.connectRatePerAddress);
	const rateTotal = rate(config.connectRate);
	const trustedProxies = proxies(config);
	return new Door({
		...(allowedOrigins.length > 0 && { origins: allowedOrigins }),
		...(ratePerAddress && { ratePerAddress }),
		...(rateTotal && { rateTotal }),
		...(trustedProxies && { trustedProxies }),
		...(clientCertificateHeader !== undefined && { certificateHeader: clientCertificateHeader }),
		token: {
			authorization: tokenHeader,
			...(tokenCookie !== undefined && { cookie: tokenCookie }),
			...(tokenQuery !== undefined && { query: tokenQuery }),
		},
		keepHost: config.tenantFromHost !== undefined,
		isBanned,
		onRefused: (reason) => {
			metrics.doorRefused[reason]++;
		},
	});
}

function proxies({ trustedProxies, trustedProxySources }: Config) {
	if (trustedProxies === undefined || trustedProxies === "0") return undefined;
	const from = trustedProxySources.length > 0 ? { from: trustedProxySources } : {};
	return trustedProxies === "fly-client-ip" ? { header: "fly-client-ip" as const, ...from } : { hops: Number(trustedProxies), ...from };
}
