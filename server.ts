/** The broker as a program: settings from the environment, a life that ends with a signal, exit code 1 for what cannot start. */

import process from "node:process";
import { makePasswordLines, makeSigningKey } from "./src/setup/commands.ts";
import { configHelp, configureLog, createBroker, type ListeningPort, log, parseConfig, VERSION } from "./src/shoal.ts";

/** Exit codes of who ends because a signal says so, by custom. */
const SIGNALLED = { SIGINT: 130, SIGTERM: 143 };

async function main(): Promise<void> {
	const config = parseConfig(process.env);
	configureLog({ level: config.logLevel, format: config.logFormat });
	const logger = log("server");
	const broker = createBroker(config);
	await broker.start();

	let ending = false;
	const end = async (signal: "SIGTERM" | "SIGINT") => {
		if (ending) {
			logger.warn("Ending at once: a second signal came", { signal });
			process.exit(SIGNALLED[signal]);
		}
		ending = true;
		logger.info("Sending the clients away", { signal });
		await broker.drain(config.drainSeconds, config.drainNoticeSeconds);
		await broker.stop();
		process.exit(0);
	};
	process.on("SIGTERM", () => void end("SIGTERM"));
	process.on("SIGINT", () => void end("SIGINT"));

	let ports: readonly ListeningPort[];
	try {
		ports = await broker.listen();
	} catch (error) {
		await broker.stop();
		throw error;
	}
	logger.info("Shoal is ready", {
		version: VERSION,
		address: `ws://localhost:${ports[0]?.port}${config.wsPath}`,
	});
}

const HELP = `Usage: shoal [option]

  --help             this text
  --version          the version
  --password NAME    makes lines for PASSWORD_FILE; reads the password from standard input
  --signing-key      makes a private key for TOKEN_KEY_FILE

Without an option it starts the broker. ${configHelp()}`;

async function standardInput(): Promise<string> {
	const chunks: Buffer[] = [];
	for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
	return Buffer.concat(chunks)
		.toString()
		.replace(/\r?\n$/, "");
}

async function run([option, argument = ""]: readonly string[]): Promise<void> {
	if (option === undefined) await main();
	else if (option === "--help") console.log(HELP);
	else if (option === "--version") console.log(VERSION);
	else if (option === "--password") console.log(await makePasswordLines(argument, await standardInput()));
	else if (option === "--signing-key") console.log(await makeSigningKey());
	else throw new Error(`"${option}" is not an option: --help names them all`);
}

run(process.argv.slice(2)).catch((error: unknown) => {
	console.error(`shoal: ${error instanceof Error ? error.message : error}`);
	process.exit(1);
});
