import { protocolVersions } from '#wire/messages.ts';
import { recordVersion } from './recovery/record.ts';

/**
 * Versions that decide whether this podvm can take over pods of another one: of the agent's protocol, and of sandbox
 * records.
 */
export const formatVersions = { wire: protocolVersions[0], record: recordVersion } as const;
