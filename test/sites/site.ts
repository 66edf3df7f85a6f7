import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { poll } from '#host/wait.ts';
import { buildImage } from '../images/build-images.ts';
import type { Recipe } from '../images/recipes.ts';
import { type CliNode, openCliNode, repo } from '../vm/cli-node.ts';

/** A file of `examples/` as its users have it, on a node of its own that has its images. */
export interface Site extends AsyncDisposable {
  readonly cli: CliNode;
  /** The file; its ports of the node are others, below those that the kernel gives to programs. */
  readonly text: string;
  /** Applies a text; the objects that were created, configured and left unchanged. */
  apply(text: string): Promise<readonly string[]>;
  /** Waits until the server at a path answers with what matches, and returns all of it. */
  page(path: string, pattern: RegExp): Promise<string>;
}

const answersMs = 600_000; // on a busy host
const lookMs = 500;

export async function openSite(
  example: string,
  ports: { readonly from: number; readonly to: number },
  recipes: readonly Recipe[],
): Promise<Site> {
  const { signal } = new AbortController();
  await using undo = new AsyncDisposableStack();
  const cli = undo.use(await openCliNode({ isSetUp: true, startsNode: true }));
  undo.defer(async () => void (await cli.type(['uninstall'])));
  for (const recipe of recipes) {
    const layout = await buildImage(recipe, signal);
    const { code, stderr } = await cli.type(['image', 'load', layout, '--name', `localhost:5000/${recipe.name}`]);
    assert.equal(code, 0, stderr);
  }
  const file = await readFile(join(repo, 'examples', example), 'utf8');
  const text = file.replace(`nodePort: ${ports.from}`, `nodePort: ${ports.to}`);
  assert.notEqual(text, file);
  const owned = undo.move();
  return {
    cli,
    text,
    async apply(given) {
      const { code, stdout, stderr } = await cli.type(['apply', '-f', '-'], given);
      assert.equal(code, 0, stderr);
      return stdout.trimEnd().split('\n').toSorted();
    },
    async page(path, pattern) {
      let last = 'nothing';
      const look = async () => {
        last = await fetch(`http://127.0.0.1:${ports.to}${path}`, { signal: AbortSignal.timeout(60_000) }).then(
          async (answer) => await answer.text(),
          String,
        );
        return pattern.test(last) ? last : undefined;
      };
      const found = await poll(look, { everyMs: lookMs, signal: AbortSignal.timeout(answersMs) });
      assert.ok(found !== undefined, `${path} answers ${last}`);
      return found;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
