/** A packet as text, in the same words whether we or mqtt-packet decoded it, for the differential test. */

import { Buffer } from "node:buffer";
import { type IPublishPacket, type Packet, parser } from "mqtt-packet";
import type { ClientPacket, ProtocolVersion } from "../../src/mqtt/packet.ts";
import { bytes, field, packet, props } from "./wire.ts";

function text(value: unknown): string {
	return JSON.stringify(value, (_, inner) => {
		// `toJSON` of a Buffer has already run.
		if (inner?.type === "Buffer") return Buffer.from(inner.data).toString("hex");
		return inner instanceof Uint8Array ? Buffer.from(inner).toString("hex") : inner;
	});
}

/** Properties by their names, sorted; those that are absent are left out, like `undefined` in JSON. */
function sorted(properties: object | undefined, ...without: string[]): object {
	const entries = Object.entries(properties ?? {}).filter(([name]) => !without.includes(name));
	return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The properties in a block of our `forwarded` bytes, read by mqtt-packet. */
function forwardedProperties(forwarded: Uint8Array): object {
	if (forwarded.length === 0) return {};
	let read: object | undefined;
	const decoder = parser({ protocolVersion: 5 });
	decoder.on("packet", (decoded) => {
		read = (decoded as IPublishPacket).properties;
	});
	decoder.parse(Buffer.from(bytes(packet(0x30, field("t"), props(forwarded)))));
	return sorted(read);
}

function present(value: number): number | undefined {
	return value === -1 ? undefined : value;
}

export function showOurs(ours: ClientPacket, version: ProtocolVersion): string {
	switch (ours.kind) {
		case "connect": {
			const { will, properties, ...rest } = ours;
			const { userProperties, ...numbers } = properties;
			const grouped: Record<string, string | string[]> = {};
			for (const [name, value] of userProperties) {
				const known = grouped[name];
				grouped[name] = known === undefined ? value : [known, value].flat();
			}
			const shownWill = will && { ...will, topic: will.topic.name, forwarded: forwardedProperties(will.forwarded) };
			return text({
				kind: "connect",
				version: rest.protocolVersion,
				clean: rest.cleanStart,
				keepAlive: rest.keepAliveSeconds,
				clientId: rest.clientId,
				username: rest.username,
				password: rest.password,
				will: shownWill && sorted(shownWill),
				properties: sorted({ ...numbers, userProperties: Object.keys(grouped).length === 0 ? undefined : grouped }),
			});
		}
		case "publish":
			return text({
				kind: "publish",
				topic: ours.topic?.name ?? "",
				payload: ours.payload,
				flags: [ours.qos, ours.retain, ours.dup],
				packetId: ours.packetId,
				alias: present(ours.topicAlias),
				expiry: present(ours.expirySeconds),
				forwarded: forwardedProperties(ours.forwarded),
			});
		case "subscribe":
			return text({ kind: "subscribe", packetId: ours.packetId, id: present(ours.subscriptionId), requests: ours.requests });
		case "disconnect":
			return text({ kind: "disconnect", reason: version === 5 ? ours.reasonCode : 0, expiry: present(ours.sessionExpirySeconds) });
		case "auth":
			return text({ kind: "auth", reason: ours.reasonCode, method: ours.authenticationMethod, data: ours.authenticationData });
		default:
			return text(ours);
	}
}

export function showTheirs(theirs: Packet, version: ProtocolVersion): string {
	switch (theirs.cmd) {
		case "connect": {
			const { will, properties = {} } = theirs;
			const spoken = theirs.protocolVersion as ProtocolVersion;
			const willProperties = will?.properties ?? {};
			const shownWill = will && {
				topic: will.topic,
				payload: will.payload,
				qos: will.qos,
				retain: will.retain,
				delaySeconds: willProperties.willDelayInterval ?? 0,
				expirySeconds: willProperties.messageExpiryInterval ?? -1,
				forwarded: sorted(willProperties, "willDelayInterval", "messageExpiryInterval"),
			};
			return text({
				kind: "connect",
				version: spoken,
				clean: theirs.clean,
				keepAlive: theirs.keepalive,
				clientId: theirs.clientId,
				username: theirs.username,
				password: theirs.password,
				will: shownWill && sorted(shownWill),
				properties: sorted({
					sessionExpirySeconds: properties.sessionExpiryInterval ?? (spoken < 5 && theirs.clean === false ? 0xffffffff : 0),
					receiveMaximum: properties.receiveMaximum ?? 65_535,
					maximumPacketSize: properties.maximumPacketSize ?? Number.POSITIVE_INFINITY,
					topicAliasMaximum: properties.topicAliasMaximum ?? 0,
					requestResponseInformation: properties.requestResponseInformation ?? false,
					requestProblemInformation: properties.requestProblemInformation ?? true,
					userProperties: properties.userProperties,
					authenticationMethod: properties.authenticationMethod,
					authenticationData: properties.authenticationData,
				}),
			});
		}
		case "publish":
			return text({
				kind: "publish",
				topic: theirs.topic,
				payload: theirs.payload,
				flags: [theirs.qos, theirs.retain, theirs.dup],
				packetId: theirs.messageId ?? 0,
				alias: theirs.properties?.topicAlias,
				expiry: theirs.properties?.messageExpiryInterval,
				forwarded: sorted(theirs.properties, "topicAlias", "messageExpiryInterval"),
			});
		case "subscribe":
			return text({
				kind: "subscribe",
				packetId: theirs.messageId,
				id: theirs.properties?.subscriptionIdentifier,
				requests: theirs.subscriptions.map(({ topic, qos, nl = false, rap = false, rh = 0 }) => {
					return { filter: topic, qos, noLocal: nl, retainAsPublished: rap, retainHandling: rh };
				}),
			});
		case "unsubscribe":
			return text({ kind: "unsubscribe", packetId: theirs.messageId, filters: theirs.unsubscriptions });
		case "disconnect":
			return text({ kind: "disconnect", reason: version === 5 ? theirs.reasonCode : 0, expiry: theirs.properties?.sessionExpiryInterval });
		case "auth": {
			const { authenticationMethod, authenticationData } = theirs.properties ?? {};
			return text({ kind: "auth", reason: theirs.reasonCode, method: authenticationMethod, data: authenticationData });
		}
		case "puback":
		case "pubrec":
		case "pubrel":
		case "pubcomp":
			return text({ kind: theirs.cmd, packetId: theirs.messageId, reasonCode: version === 5 ? theirs.reasonCode : 0 });
		default:
			return text({ kind: theirs.cmd });
	}
}
