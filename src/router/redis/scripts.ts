/** The Lua scripts of the router, with the digest under which the server knows them. What each one does stands at its head. */

import { createHash } from "node:crypto";
import type { Script } from "../../store/redis/scripts.ts";
import inboxCreate from "./lua/inbox_create.lua" with { type: "text" };
import inboxTrim from "./lua/inbox_trim.lua" with { type: "text" };
import noticeAdd from "./lua/notice_add.lua" with { type: "text" };
import routeChange from "./lua/route_change.lua" with { type: "text" };
import routeCommit from "./lua/route_commit.lua" with { type: "text" };
import routeForget from "./lua/route_forget.lua" with { type: "text" };
import routeStage from "./lua/route_stage.lua" with { type: "text" };

function script(name: string, text: string): Script {
	return { name, text, digest: createHash("sha1").update(text).digest("hex") };
}

export const scripts = {
	inboxCreate: script("inbox_create", inboxCreate),
	inboxTrim: script("inbox_trim", inboxTrim),
	noticeAdd: script("notice_add", noticeAdd),
	routeChange: script("route_change", routeChange),
	routeCommit: script("route_commit", routeCommit),
	routeForget: script("route_forget", routeForget),
	routeStage: script("route_stage", routeStage),
} as const satisfies Readonly<Record<string, Script>>;
