import { podAnnotations } from '../../src/base/pod-annotations.ts';
import { code, page, table } from './markdown.ts';

interface Row {
  readonly name: string;
  readonly words?: readonly string[];
  readonly value?: string;
  readonly about: string;
}

export async function annotationsPage(): Promise<string> {
  const rows = Object.values<Row>(podAnnotations).map(({ name, words, value = '', about }) => [
    code(name),
    words === undefined
      ? value
      : words.map((word, at) => (at === 0 ? `${code(word)} (default)` : code(word))).join(', '),
    about,
  ]);
  return await page(
    'Annotations of a pod',
    '`src/base/pod-annotations.ts`',
    'Annotations in `metadata.annotations` of a pod that change what podvm does. They have the same meaning under ' +
      '`podvm run` and under a kubelet, unless the table says otherwise. A pod with a wrong value is refused.',
    table(['annotation', 'value', 'meaning'], rows),
    'Example: `examples/block-volume.yaml` mounts an image file with `podvm.dev/block-volumes`.',
  );
}
