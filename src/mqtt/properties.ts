/**
 * The property table of MQTT 5 section 2.2.2.2: which property has which type, and in which of a client's packets it may
 * stand. Data only; `decode_fields.ts` applies it.
 */

/** Property identifiers. All are below 0x80, so each is one byte on the wire though it is a variable byte integer. */
export const Property = {
	payloadFormatIndicator: 0x01,
	messageExpiryInterval: 0x02,
	contentType: 0x03,
	responseTopic: 0x08,
	correlationData: 0x09,
	subscriptionIdentifier: 0x0b,
	sessionExpiryInterval: 0x11,
	assignedClientIdentifier: 0x12,
	serverKeepAlive: 0x13,
	authenticationMethod: 0x15,
	authenticationData: 0x16,
	requestProblemInformation: 0x17,
	willDelayInterval: 0x18,
	requestResponseInformation: 0x19,
	responseInformation: 0x1a,
	serverReference: 0x1c,
	reasonString: 0x1f,
	receiveMaximum: 0x21,
	topicAliasMaximum: 0x22,
	topicAlias: 0x23,
	maximumQos: 0x24,
	retainAvailable: 0x25,
	userProperty: 0x26,
	maximumPacketSize: 0x27,
	wildcardSubscriptionAvailable: 0x28,
	subscriptionIdentifiersAvailable: 0x29,
	sharedSubscriptionAvailable: 0x2a,
} as const;

/** How the value of a property is written. */
export const PropertyType = {
	byte: 1,
	twoByteInteger: 2,
	fourByteInteger: 3,
	variableByteInteger: 4,
	text: 5,
	textPair: 6,
	binary: 7,
} as const;

/** Where a client may put properties: one bit each. PUBACK, PUBREC, PUBREL and PUBCOMP have the same ones. */
export const PropertyPlace = {
	connect: 1,
	will: 2,
	publish: 4,
	acknowledgement: 8,
	subscribe: 16,
	unsubscribe: 32,
	disconnect: 64,
	auth: 128,
} as const;

const { byte, twoByteInteger, fourByteInteger, variableByteInteger, text, textPair, binary } = PropertyType;
const { connect, will, publish, acknowledgement, subscribe, unsubscribe, disconnect, auth } = PropertyPlace;
/** Defined by MQTT and sent by servers only, or in their packets only. */
const serverOnly = 0;

const TABLE: readonly (readonly [id: number, type: number, places: number])[] = [
	[Property.payloadFormatIndicator, byte, publish | will],
	[Property.messageExpiryInterval, fourByteInteger, publish | will],
	[Property.contentType, text, publish | will],
	[Property.responseTopic, text, publish | will],
	[Property.correlationData, binary, publish | will],
	// Servers may send it in PUBLISH, clients MUST NOT [MQTT-3.3.4-6].
	[Property.subscriptionIdentifier, variableByteInteger, subscribe],
	[Property.sessionExpiryInterval, fourByteInteger, connect | disconnect],
	[Property.assignedClientIdentifier, text, serverOnly],
	[Property.serverKeepAlive, twoByteInteger, serverOnly],
	[Property.authenticationMethod, text, connect | auth],
	[Property.authenticationData, binary, connect | auth],
	[Property.requestProblemInformation, byte, connect],
	[Property.willDelayInterval, fourByteInteger, will],
	[Property.requestResponseInformation, byte, connect],
	[Property.responseInformation, text, serverOnly],
	[Property.serverReference, text, serverOnly],
	[Property.reasonString, text, acknowledgement | disconnect | auth],
	[Property.receiveMaximum, twoByteInteger, connect],
	[Property.topicAliasMaximum, twoByteInteger, connect],
	[Property.topicAlias, twoByteInteger, publish],
	[Property.maximumQos, byte, serverOnly],
	[Property.retainAvailable, byte, serverOnly],
	[Property.userProperty, textPair, connect | will | publish | acknowledgement | subscribe | unsubscribe | disconnect | auth],
	[Property.maximumPacketSize, fourByteInteger, connect],
	[Property.wildcardSubscriptionAvailable, byte, serverOnly],
	[Property.subscriptionIdentifiersAvailable, byte, serverOnly],
	[Property.sharedSubscriptionAvailable, byte, serverOnly],
];

/** {@link PropertyType} by identifier byte; 0 for one that MQTT does not define. */
export const PROPERTY_TYPES: Uint8Array = new Uint8Array(256);

/** {@link PropertyPlace} bits by identifier byte. */
export const PROPERTY_PLACES: Uint8Array = new Uint8Array(256);

/** A bit for each property that may stand only once, by identifier byte; 0 for User Property, the only one that a client may repeat. */
export const PROPERTY_ONCE_BITS: Int32Array = new Int32Array(256);

/** What errors call a property, by identifier byte. */
export const PROPERTY_NAMES: string[] = new Array(256).fill("");

for (const [name, id] of Object.entries(Property)) {
	PROPERTY_NAMES[id] = name.replace(/[A-Z]/g, (letter) => ` ${letter}`).replace(/^./, (letter) => letter.toUpperCase());
}

for (const [row, [id, type, places]] of TABLE.entries()) {
	PROPERTY_TYPES[id] = type;
	PROPERTY_PLACES[id] = places;
	PROPERTY_ONCE_BITS[id] = id === Property.userProperty ? 0 : 1 << row;
}
