import { protocolVersions } from '#wire/messages.ts';
import { recordVersion } from './recovery/record.ts';

/** What a podvm can continue of another one: the newest of the agent's protocol, and of the records of sandboxes. */
export const formatVersions = { wire: protocolVersions[0], record: recordVersion } as const;
