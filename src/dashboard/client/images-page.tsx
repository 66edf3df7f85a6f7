import * as v from 'valibot';
import { imageSummarySchema } from '#api/images.ts';
import { ageText, bytesText } from './format.ts';
import { listOf } from './list-page.tsx';
import { Status } from './ui.tsx';

/** Images that the node has. */
export const images = listOf({
  title: 'Images',
  path: '/v1/images',
  schema: v.array(imageSummarySchema),
  keyOf: ({ references, id }) => `${references[0] ?? ''} ${id}`,
  wordsOf: ({ id, references, digests }) => [id, ...references, ...digests],
  bytesOf: ({ sizeBytes }) => sizeBytes,
  columns: [
    {
      title: 'Name',
      cell: ({ references }) => (references.length === 0 ? <span class="faint">no name</span> : references.join(', ')),
      class: 'grow',
    },
    { title: 'Id', cell: ({ id }) => id.replace(/^sha256:/, '').slice(0, 12), class: 'mid code' },
    { title: 'Size', cell: ({ sizeBytes }) => bytesText(sizeBytes), class: 'number' },
    {
      title: 'Age',
      cell: ({ createdAt }) => (createdAt === undefined ? '–' : ageText(createdAt)),
      class: 'number mid',
    },
    {
      title: 'File',
      cell: ({ damaged }) => (damaged === undefined ? 'good' : <Status text={`damaged: ${damaged}`} />),
      class: 'mid',
    },
  ],
  empty: (
    <>
      No image is stored. Get one with <code>podvm image pull</code>.
    </>
  ),
});
