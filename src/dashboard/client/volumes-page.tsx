import * as v from 'valibot';
import { volumeSummarySchema } from '#api/volumes.ts';
import { ageText, bytesText } from './format.ts';
import { listOf } from './list-page.tsx';
import { keyOf, podPath } from './pod-name.ts';

/** Named volumes of the node. */
export const volumes = listOf({
  title: 'Volumes',
  path: '/v1/volumes',
  schema: v.array(volumeSummarySchema),
  keyOf,
  wordsOf: (volume) => [keyOf(volume), ...volume.pods],
  bytesOf: ({ usedBytes }) => usedBytes,
  columns: [
    {
      title: 'Name',
      cell: ({ namespace, name }) => (
        <>
          <span class="faint">{namespace}/</span>
          {name}
        </>
      ),
      class: 'grow',
    },
    { title: 'Used', cell: ({ usedBytes }) => bytesText(usedBytes), class: 'number' },
    { title: 'Size', cell: ({ sizeBytes }) => bytesText(sizeBytes), class: 'number' },
    { title: 'Age', cell: ({ createdAt }) => ageText(createdAt), class: 'number mid' },
    {
      title: 'Pods',
      cell: ({ namespace, pods }) =>
        pods.length === 0
          ? 'none'
          : pods.map((name) => (
              <a key={name} href={podPath({ namespace, name })}>
                {name}{' '}
              </a>
            )),
      class: 'mid',
    },
  ],
  empty: (
    <>
      No volume is stored. A PersistentVolumeClaim in a file of <code>podvm run</code> makes one.
    </>
  ),
});
