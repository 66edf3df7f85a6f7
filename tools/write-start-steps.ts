import { writeFile } from 'node:fs/promises';
import { startPage, startPagePath } from './start-steps.ts';

/** `npm run steps`: prints the table of a start's steps into the documents. */
await writeFile(startPagePath, await startPage());
