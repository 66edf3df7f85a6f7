import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildImage, cache, pushImage } from './build-images.ts';
import { recipes } from './recipes.ts';
import { prometheusRecipe, wordpressRecipes } from './site-recipes.ts';
import { untilAnswers } from './registry.ts';

/**
 * `npm run examples:images`: builds the images of the examples and serves them on localhost:5000, for this machine only,
 * until Ctrl-C. `-- shop/` builds only those whose names begin so.
 */
const port = 5000;
const directory = join(cache, 'registry');
await mkdir(directory, { recursive: true });
const config = {
  version: '0.1',
  log: { level: 'error', accesslog: { disabled: true } },
  storage: { filesystem: { rootdirectory: join(directory, 'storage') } },
  http: { addr: `127.0.0.1:${port}` },
};
await writeFile(join(directory, 'config.yml'), JSON.stringify(config)); // JSON is YAML
const registry = spawn('docker-registry', ['serve', join(directory, 'config.yml')], {
  stdio: 'ignore',
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => registry.kill());
const ended = once(registry, 'exit');
void ended.then(() => process.exit(1));
await untilAnswers(port);
const { signal } = new AbortController();
const [prefix = ''] = process.argv.slice(2);
const all = [...recipes, prometheusRecipe, ...wordpressRecipes].filter(({ name }) => name.startsWith(prefix));
for (const recipe of all) {
  process.stderr.write(`${recipe.name} ...\n`);
  await pushImage(await buildImage(recipe, signal), `localhost:${port}/${recipe.name}`, signal);
}
process.stderr.write(`serving ${all.map(({ name }) => `localhost:${port}/${name}`).join(', ')}; Ctrl-C ends it\n`);
