import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { silentLog } from '#host/log/log.ts';
import { openImageStore } from '#image/store/image-store.ts';
import { describeImageStore } from '#image/testing/images.conformance.ts';
import { sysroot } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { startRegistry } from '../images/registry.ts';
import { whyNoVm } from './node.ts';

describeImageStore(
  'real',
  async () => {
    await using undo = new AsyncDisposableStack();
    const directory = await mkdtemp('/var/tmp/podvm-store-');
    undo.defer(() => rm(directory, { recursive: true }));
    await chmod(directory, 0o711);
    const containersDirectory = join(directory, 'containers');
    await mkdir(containersDirectory);
    await writeFile(join(containersDirectory, 'policy.json'), '{"default":[{"type":"insecureAcceptAnything"}]}');
    await writeFile(join(containersDirectory, 'registries.conf'), '');
    const registry = undo.use(await startRegistry());
    const [image] = await writeLayout(join(directory, 'web'), [{ layers: [[{ name: 'web', content: 'web' }]] }]);
    await registry.push(image?.layout ?? assert.fail('no layout'), 'shop/web:1');
    const store = await openImageStore({
      directory: join(directory, 'images'),
      sysroot: await sysroot(),
      log: silentLog,
      containersDirectory,
    });
    const owned = undo.move();
    return {
      store,
      reference: `${registry.name}/shop/web:1`,
      missing: `${registry.name}/shop/none:1`,
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    };
  },
  await whyNoVm(),
);
