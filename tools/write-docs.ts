import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { referencePages } from './reference/pages.ts';

/** `npm run docs`: writes `docs/reference/`. */
const directory = join(import.meta.dirname, '../docs/reference');
await mkdir(directory, { recursive: true });
for (const [name, print] of Object.entries(referencePages)) await writeFile(join(directory, name), await print());
