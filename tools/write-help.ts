import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { helpPages } from '../src/cli/help-pages.ts';

/** `npm run help`: what the shell script `podvm` answers from before Node and npm packages are there. */
await writeFile(join(import.meta.dirname, '../src/cli/help.txt'), helpPages());
