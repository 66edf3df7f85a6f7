import { silentLog } from '#host/log/log.ts';
import { openImageStore } from '#image/store/image-store.ts';
import { sysroot } from './image-tree.ts';

/** Loads an archive into a store, and is killed meanwhile. */
const [directory = '', archive = ''] = process.argv.slice(2);
const store = await openImageStore({ directory, sysroot: await sysroot(), log: silentLog });
await store.load(archive, undefined, {}, AbortSignal.timeout(60_000));
