import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createFakeImages } from './fake-images.ts';
import { describeImageStore } from './images.conformance.ts';

describeImageStore('fake', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-images-'));
  const [reference, missing] = ['registry.example/shop/web:1', 'registry.example/shop/none:1'];
  return {
    store: createFakeImages({ directory, registry: (name) => (name === missing ? undefined : { cmd: ['run'] }) }),
    reference,
    missing,
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
});
