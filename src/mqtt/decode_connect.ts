/**
 * CONNECT, from its first byte after the fixed header. The protocol version is told to the caller as soon as it is known,
 * because whatever is wrong behind it is answered in the words of that version.
 */

import { type FieldReader, malformed, protocolError } from "./decode_fields.ts";
import type { MessageProperties } from "./decode_message.ts";
import type { ConnectPacket, ConnectProperties, ProtocolVersion, QoS, UserProperty, WillFields } from "./packet.ts";
import { Property, PropertyPlace } from "./properties.ts";
import { MqttError, ReasonCode } from "./reason_code.ts";
import type { TopicTable } from "./topic.ts";

const NEVER_EXPIRES = 0xffffffff;
const FLAG = { reserved: 0x01, cleanStart: 0x02, will: 0x04, willQos: 0x18, willRetain: 0x20, password: 0x40, username: 0x80 } as const;

/** Protocol name and level, with which every CONNECT begins. Throws 0x84 for a protocol that this is not. */
export function decodeProtocol(reader: FieldReader): ProtocolVersion {
	const name = reader.text("its protocol name");
	const level = reader.byte("its protocol level");
	if (name === "MQTT" && (level === 4 || level === 5)) return level;
	if (name === "MQIsdp" && level === 3) return level;
	// [MQTT-3.1.2-1] [MQTT-3.1.2-2]
	throw new MqttError(
		ReasonCode.unsupportedProtocolVersion,
		`Cannot speak protocol "${name.slice(0, 20)}" level ${level}: use MQTT 3.1, 3.1.1 or 5.0`,
	);
}

/** Everything behind the protocol level. */
export function decodeConnect(
	reader: FieldReader,
	protocolVersion: ProtocolVersion,
	message: MessageProperties,
	topics: TopicTable,
): ConnectPacket {
	const flags = reader.byte("its flags");
	if ((flags & FLAG.reserved) !== 0) throw malformed("CONNECT", "its reserved flag is set"); // [MQTT-3.1.2-3]
	const hasWill = (flags & FLAG.will) !== 0;
	const willQos = (flags & FLAG.willQos) >> 3;
	if (willQos === 3) throw malformed("CONNECT", "its Will QoS is 3"); // [MQTT-3.1.2-12] [v3 MQTT-3.1.2-14]
	if (!hasWill && (flags & (FLAG.willQos | FLAG.willRetain)) !== 0) {
		throw malformed("CONNECT", "it has Will QoS or Will Retain without a will"); // [MQTT-3.1.2-11] [MQTT-3.1.2-13] [v3 MQTT-3.1.2-15]
	}
	const hasUsername = (flags & FLAG.username) !== 0;
	const hasPassword = (flags & FLAG.password) !== 0;
	if (hasPassword && !hasUsername && protocolVersion < 5) throw malformed("CONNECT", "it has a password without a user name"); // [v3 MQTT-3.1.2-22]
	const cleanStart = (flags & FLAG.cleanStart) !== 0;
	const keepAliveSeconds = reader.twoBytes("its keep alive");
	const properties = protocolVersion === 5 ? decodeConnectProperties(reader) : cleanStart ? CLEAN_DEFAULTS : PERSISTENT_DEFAULTS;
	const clientId = reader.text("its client identifier"); // [MQTT-3.1.3-3] [MQTT-3.1.3-4]
	const will = hasWill ? decodeWill(reader, protocolVersion, message, topics, willQos as QoS, (flags & FLAG.willRetain) !== 0) : undefined;
	// MQTT 3.1 section 3.1: a flag may be set and its field missing at the end, from the time before 3.1 had these fields.
	const username = hasUsername && !(protocolVersion === 3 && reader.atEnd) ? reader.text("its user name") : undefined; // [MQTT-3.1.2-17] [MQTT-3.1.3-12]
	const password = hasPassword && !(protocolVersion === 3 && reader.atEnd) ? reader.binary("its password") : undefined; // [MQTT-3.1.2-19]
	reader.close();
	return { kind: "connect", protocolVersion, cleanStart, keepAliveSeconds, clientId, username, password, will, properties };
}

function decodeWill(
	reader: FieldReader,
	protocolVersion: ProtocolVersion,
	message: MessageProperties,
	topics: TopicTable,
	qos: QoS,
	retain: boolean,
): WillFields {
	// [MQTT-3.1.2-9]
	if (protocolVersion === 5) message.read(reader, PropertyPlace.will);
	else message.clear();
	const nameLength = reader.twoBytes("its will topic");
	const nameStart = reader.position;
	reader.skipBytes(nameLength, "its will topic");
	const topic = topics.intern(reader.bytes, nameStart, reader.position); // [MQTT-3.1.3-11]
	// Copies: a will outlives the chunk that it came in by hours, and must not keep it.
	const payload = new Uint8Array(reader.binary("its will payload"));
	const forwarded = message.forwarded.length === 0 ? message.forwarded : new Uint8Array(message.forwarded);
	return { topic, payload, qos, retain, delaySeconds: message.delaySeconds, expirySeconds: message.expirySeconds, forwarded };
}

const CLEAN_DEFAULTS: ConnectProperties = {
	sessionExpirySeconds: 0,
	receiveMaximum: 65_535,
	maximumPacketSize: Number.POSITIVE_INFINITY,
	topicAliasMaximum: 0,
	requestResponseInformation: false,
	requestProblemInformation: true,
	userProperties: [],
	authenticationMethod: undefined,
	authenticationData: undefined,
};

const PERSISTENT_DEFAULTS: ConnectProperties = { ...CLEAN_DEFAULTS, sessionExpirySeconds: NEVER_EXPIRES };

function decodeConnectProperties(reader: FieldReader): ConnectProperties {
	let { sessionExpirySeconds, receiveMaximum, maximumPacketSize, topicAliasMaximum } = CLEAN_DEFAULTS;
	let { requestResponseInformation, requestProblemInformation, authenticationMethod, authenticationData } = CLEAN_DEFAULTS;
	const userProperties: UserProperty[] = [];
	reader.beginProperties();
	while (!reader.atEnd) {
		switch (reader.property(PropertyPlace.connect)) {
			case Property.sessionExpiryInterval:
				sessionExpirySeconds = reader.fourBytes("Session Expiry Interval");
				break;
			case Property.receiveMaximum:
				receiveMaximum = reader.twoBytes("Receive Maximum");
				if (receiveMaximum === 0) throw protocolError("CONNECT", "its Receive Maximum is 0");
				break;
			case Property.maximumPacketSize:
				maximumPacketSize = reader.fourBytes("Maximum Packet Size");
				if (maximumPacketSize === 0) throw protocolError("CONNECT", "its Maximum Packet Size is 0");
				break;
			case Property.topicAliasMaximum:
				topicAliasMaximum = reader.twoBytes("Topic Alias Maximum");
				break;
			case Property.requestResponseInformation:
				requestResponseInformation = reader.flag("Request Response Information");
				break;
			case Property.requestProblemInformation:
				requestProblemInformation = reader.flag("Request Problem Information");
				break;
			case Property.authenticationMethod:
				authenticationMethod = reader.text("Authentication Method");
				break;
			case Property.authenticationData:
				authenticationData = reader.binary("Authentication Data");
				break;
			case Property.userProperty:
				// [MQTT-1.5.7-1]
				userProperties.push([reader.text("the name of a User Property"), reader.text("the value of a User Property")]);
				break;
		}
	}
	reader.endProperties();
	if (authenticationData !== undefined && authenticationMethod === undefined) {
		throw protocolError("CONNECT", "it has Authentication Data without an Authentication Method");
	}
	return {
		sessionExpirySeconds,
		receiveMaximum,
		maximumPacketSize,
		topicAliasMaximum,
		requestResponseInformation,
		requestProblemInformation,
		userProperties,
		authenticationMethod,
		authenticationData,
	};
}
