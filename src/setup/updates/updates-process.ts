import { json } from 'node:stream/consumers';
import * as v from 'valibot';
import { updateRequestSchema } from '../update-report.ts';
import { checkUpdates } from './updates.ts';

/** The program that `checkUpdatesApart` runs: a request on standard input, the report on standard output, both as JSON. */
const request = v.parse(updateRequestSchema, await json(process.stdin));
process.stdout.write(JSON.stringify(await checkUpdates(request, new AbortController().signal)));
