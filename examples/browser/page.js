/** The page's client: MQTT.js, its three forms, and what came in. The import map in `page.html` says where MQTT.js is. */

import mqtt from "mqtt";

const MAX_ROWS = 100;

/** @type {mqtt.MqttClient | undefined} */
let client;

const form = (/** @type {string} */ id) => /** @type {HTMLFormElement} */ (document.getElementById(id));
const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const field = (/** @type {string} */ id, /** @type {string} */ name) => String(new FormData(form(id)).get(name) ?? "");
const qos = (/** @type {string} */ id) => /** @type {0 | 1 | 2} */ (Number(field(id, "qos")));

// A page that came by HTTPS may only use wss. The path is part of the address.
const address = /** @type {HTMLInputElement} */ (form("connect").elements.namedItem("address"));
address.value = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/mqtt`;

form("connect").addEventListener("submit", (event) => {
	event.preventDefault();
	client?.end();
	client = mqtt.connect(field("connect", "address"), {
		protocolVersion: 5,
		// Two clients with the same id would throw each other out.
		clientId: `page-${crypto.randomUUID().slice(0, 8)}`,
		username: field("connect", "username"),
		password: field("connect", "password"),
		keepalive: 60,
		clean: true,
		connectTimeout: 30_000,
		reconnectPeriod: 1000,
		will: { topic: "hello/last-words", payload: "a page is gone", qos: 0, retain: false },
	});
	show("connecting");
	client.on("connect", () => show("connected"));
	client.on("reconnect", () => show("connecting again"));
	client.on("close", () => show("closed"));
	client.on("error", complain);
	client.on("message", (topic, payload, packet) => addRow(topic, payload.toString(), packet));
});

form("subscribe").addEventListener("submit", (event) => {
	event.preventDefault();
	void attempt(() => client?.subscribeAsync(field("subscribe", "filter"), { qos: qos("subscribe") }));
});

element("unsubscribe").addEventListener("click", () => void attempt(() => client?.unsubscribeAsync(field("subscribe", "filter"))));

form("publish").addEventListener("submit", (event) => {
	event.preventDefault();
	const retain = field("publish", "retain") !== "";
	void attempt(() => client?.publishAsync(field("publish", "topic"), field("publish", "message"), { qos: qos("publish"), retain }));
});

/** @param {() => Promise<unknown> | undefined} action */
async function attempt(action) {
	try {
		if (client === undefined) throw new Error("Connect first");
		await action();
		complain(undefined);
	} catch (error) {
		complain(error);
	}
}

/** @param {string} state */
function show(state) {
	element("state").textContent = state;
	element("state").dataset.state = state;
	if (state === "connected") complain(undefined);
}

/** @param {unknown} error */
function complain(error) {
	element("problem").hidden = error === undefined;
	element("problem").textContent = error instanceof Error ? error.message : "";
}

/**
 * @param {string} topic
 * @param {string} message
 * @param {{ qos: number, retain: boolean }} packet
 */
function addRow(topic, message, packet) {
	const row = document.createElement("tr");
	const cells = [new Date().toLocaleTimeString(), topic, message, `${packet.qos}${packet.retain ? ", retained" : ""}`];
	for (const text of cells) row.insertCell().textContent = text;
	element("messages").prepend(row);
	while (element("messages").childElementCount > MAX_ROWS) element("messages").lastElementChild?.remove();
}
