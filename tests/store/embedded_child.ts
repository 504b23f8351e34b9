/**
 * A process of its own for the tests of the embedded store: `open {path}` says whether it could open the file and then holds
 * it; `load {path}` publishes without end and writes a line for each message whose promise has resolved.
 */

import { writeSync } from "node:fs";
import { createEmbeddedStore } from "../../src/store/embedded_store.ts";
import { StoreError } from "../../src/store/store.ts";
import { message, NOW, subscription } from "../contracts/store/fixture.ts";

const [mode, path = ""] = process.argv.slice(2);

function say(line: string): void {
	writeSync(1, `${line}\n`);
}

const store = createEmbeddedStore({ path, sync: "normal", limits: { logMaxMessages: 1_000_000, maxRetained: 1_000_000 } });
try {
	await store.start(NOW, () => {});
	say("opened");
} catch (error) {
	say(error instanceof StoreError ? `${error.code}: ${error.message}` : String(error));
	process.exit(1);
}

async function load(): Promise<never> {
	const opened = await store.openSession({
		clientId: "a",
		user: "",
		cleanStart: true,
		sessionExpirySeconds: 3600,
		will: undefined,
		nowMs: NOW,
	});
	const session = { clientId: "a", epoch: opened.epoch };
	await store.subscribe(session, [subscription("t"), subscription("$share/g/t")]);
	for (let n = 1; ; n++) {
		const publishing = [];
		for (let k = 0; k < 20; k++) {
			const packetId = ((n - 1) * 20 + k) % 60_000;
			const content = message(`r/${packetId}`, { payload: "x".repeat(100 + k) });
			const reserve = { session, packetId: packetId + 1 };
			publishing.push(
				store
					.publish({
						message: content,
						logs: ["t", "$share/g/t"],
						retain: true,
						reserve,
						willId: undefined,
						name: undefined,
						forward: undefined,
					})
					.then((result) => {
						if (result.duplicate) return;
						const [plain, shared] = result.appended;
						say(`${plain?.seq} ${shared?.seq} ${packetId}`);
					}),
			);
		}
		await Promise.all(publishing);
	}
}

if (mode === "load") await load();
else setInterval(() => {}, 1000);
