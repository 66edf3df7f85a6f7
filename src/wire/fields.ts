import * as v from 'valibot';
import { guestText } from '#base/guest-text.ts';
import { limits } from './limits.ts';

/** Fields that several messages have. */

/** Name of a volume, a container, an exec: a file name in the guest, never `.` or `..`. */
export const name = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/));
export const serial = v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,20}$/));
export const path = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));
export const absolutePath = v.pipe(path, v.startsWith('/'));
const text = v.pipe(v.string(), v.maxLength(limits.maxTextBytes));
/** Arguments or variables: too many for a schema to check one by one on the guest's engine. */
export const processStrings = v.custom<string[]>(
  (value) => Array.isArray(value) && value.length <= limits.maxArguments && value.every(isProcessString),
  'no list of arguments',
);
const isProcessString = (value: unknown) => typeof value === 'string' && value.length < limits.maxArgumentBytes;
export const processArgs = v.pipe(processStrings, v.minLength(1));
export const etcFile = v.pipe(v.string(), v.maxLength(limits.maxEtcFileBytes));
export const shortText = v.pipe(v.string(), v.maxLength(512));
/** Free text of the guest: a string to the agent that writes it, marked for the host that reads it. */
export const said = (maxChars: number) => v.pipe(v.string(), v.maxLength(maxChars), v.transform(guestText));
export const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const streamId = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0x7fff_ffff));
export const userId = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_fffe));
export const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const base64Of = (maxBytes: number) => v.pipe(v.string(), v.maxLength(Math.ceil((maxBytes * 4) / 3) + 4));
export const base64 = base64Of(limits.maxPushPartBytes);
/** Bytes of the guest. Only the host reads them, so checking the alphabet costs the agent nothing. */
export const saidBase64 = (maxBytes: number) => v.pipe(base64Of(maxBytes), v.regex(/^[A-Za-z0-9+/]*={0,2}$/));
export const cells = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(10_000));
export const list = <T extends v.GenericSchema>(item: T, max: number = limits.maxListItems) =>
  v.pipe(v.array(item), v.maxLength(max));
export const textTable = v.pipe(
  v.record(shortText, text),
  v.check((table) => Object.keys(table).length <= limits.maxListItems, 'too many entries'),
);

/** Durations in `ms`, in order. */
export const phases = list(v.object({ name: said(512), ms: v.pipe(v.number(), v.finite()) }));
