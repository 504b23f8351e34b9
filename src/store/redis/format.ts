/**
 * The format of what replicas write for one another, so that those of the next version can join a running cluster and leave it.
 * Each replica says with its lease which formats it reads, and all write the highest one that each of them can read: a new format
 * is not written before the last replica that cannot read it is gone. From then on it is recorded in Redis that there may be
 * data of that format, and who cannot read it does not start.
 *
 * A format is the version with which message records and parcels begin. It changes when the layout of either does: the new
 * version reads all from 1 to {@link READS}, and writes each as it is told to. Another layout of an envelope is another kind.
 */

import { RECORD_VERSION } from "../message_record.ts";
import { StoreError } from "../store.ts";

/** The newest format that this version reads. */
export const READS = RECORD_VERSION;

export class Format {
	#writes = 1;

	/** The format to write now: every replica that lives can read it. */
	get writes(): number {
		return this.#writes;
	}

	/** Redis has said which format there is. Throws `StoreError` `newerVersion` when this version cannot read it. */
	heard(format: number): void {
		if (format > READS) {
			throw new StoreError(
				"newerVersion",
				`Cannot use this Redis: it has data of format ${format}, and this version of Shoal reads formats up to ${READS}. ` +
					"Run the version that wrote it, restore a backup from before, or give this one another REDIS_PREFIX",
			);
		}
		this.#writes = Math.max(this.#writes, format);
	}
}
