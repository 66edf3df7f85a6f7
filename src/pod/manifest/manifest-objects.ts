import type { YamlDocument } from './yaml-text.ts';

/** One object of a manifest, with its location. */
export interface Found {
  readonly document: YamlDocument;
  readonly path: readonly (string | number)[];
  readonly value: unknown;
}

/** Lists of one kind, whose items may omit it, as printed by `kubectl get --raw` and a kubelet's `/pods`. */
const typedList = /^(Pod|ConfigMap|Secret|PersistentVolumeClaim|Service)List$/;

/** Returns the objects of a document: itself, or the items of a list. */
export function objectsOf(document: YamlDocument): Found[] {
  return unfold({ document, path: [], value: document.value });
}

function unfold(found: Found): Found[] {
  const { document, path, value } = found;
  if (value === null || value === undefined) return [];
  if (typeof value !== 'object' || !('kind' in value) || !isListKind(value.kind)) return [found];
  const items: unknown = 'items' in value ? value.items : null;
  if (items !== null && !Array.isArray(items)) return [found];
  const kind = typedList.exec(String(value.kind))?.[1];
  return (items ?? []).flatMap((item: unknown, index) => {
    const own = kind !== undefined && isPlainObject(item) ? { apiVersion: 'v1', kind, ...item } : item;
    return unfold({ document, path: [...path, 'items', index], value: own });
  });
}

/** Returns whether the kind is a list of manifest objects. */
export function isListKind(kind: unknown): boolean {
  return typeof kind === 'string' && (kind === 'List' || typedList.test(kind));
}

function isPlainObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
