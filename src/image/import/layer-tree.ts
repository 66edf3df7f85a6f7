import { printable } from '#base/guest-text.ts';
import type { Content } from './content-file.ts';
import { ImageBudget } from './image-budget.ts';
import type { ImageLimits } from '../limits.ts';
import type { Fault } from '../tar/tar-bytes.ts';
import type { TarMember } from '../tar/tar-reader.ts';

/** Owner, permissions, times and attributes. */
export type Meta = Pick<TarMember, 'mode' | 'uid' | 'gid' | 'mtimeS' | 'mtimeNs' | 'xattrs'>;

export interface Directory {
  readonly kind: 'directory';
  meta: Meta;
  readonly entries: Map<string, Entry>;
}

/** Anything but a directory. Several names of one leaf are hard links. */
export interface Leaf {
  readonly kind: 'leaf';
  readonly member: Omit<TarMember, 'name'>;
  /** Content of a file that is not empty, once it is stored. */
  content?: Content;
}

/** A name in a directory, with the last layer that provided it. */
interface Entry {
  node: Directory | Leaf;
  layer: number;
}

const whiteout = '.wh.';
const opaque = '.wh..wh..opq';
/** Metadata of directories that no layer describes; the same as containerd's. */
const impliedMeta: Meta = { mode: 0o755, uid: 0, gid: 0, mtimeS: 0, mtimeNs: 0, xattrs: new Map() };

/**
 * Layers merged lowest first: names and headers, and where the content of files is. Whiteouts hide entries of lower layers, never those of
 * their own; names are resolved inside the tree, also through symbolic links of lower layers, and never leave it. Source:
 * OCI image specification, "layer"; otherwise containerd's archive package.
 */
export class LayerTree {
  readonly root: Directory = newDirectory(impliedMeta);
  readonly #limits: ImageLimits;
  readonly #budget: ImageBudget;
  #entries = 0;

  constructor(limits: ImageLimits, budget = new ImageBudget(limits)) {
    this.#limits = limits;
    this.#budget = budget;
  }

  /** Adds one member of a layer, and returns the file that it is, if it is one. Errors: the fault, `exhausted`. */
  add(member: TarMember, layer: number, fault: Fault): Leaf | undefined {
    this.#count(fault);
    this.#budget.spendMetadata(member.target.length);
    this.#budget.spendXattrs(member.xattrs);
    const path = this.#split(member.name, fault);
    const name = path.pop();
    if (name === undefined) {
      if (member.type !== 'directory') throw fault('its root is not a directory');
      this.root.meta = metaOf(member);
      return undefined;
    }
    const parent = this.#directory(path, layer, fault);
    if (name === opaque) this.#dropLower(parent, layer);
    else if (name.startsWith(whiteout)) this.#whiteOut(parent, name.slice(whiteout.length), layer);
    else if (member.type === 'directory') this.#makeDirectory(parent, name, layer).meta = metaOf(member);
    else {
      const node = this.#leaf(member, fault);
      this.#put(parent, name, { node, layer });
      return member.type === 'file' ? node : undefined;
    }
    return undefined;
  }

  #count(fault: Fault): void {
    this.#entries += 1;
    if (this.#entries > this.#limits.maxEntries)
      throw fault(`the image has more than ${this.#limits.maxEntries} files`);
  }

  #put(parent: Directory, name: string, entry: Entry): void {
    this.#budget.spendMetadata(name.length);
    parent.entries.set(own(name), entry);
  }

  #leaf(member: TarMember, fault: Fault): Leaf {
    if (member.type !== 'link') {
      if (member.target.length > this.#limits.maxPathBytes)
        throw fault(`the target of ${printable(member.name)} is too long`);
      return { kind: 'leaf', member: plain(member) };
    }
    const path = this.#split(member.target, fault);
    const name = path.pop() ?? '';
    const node = this.#find(path, fault)?.entries.get(name)?.node;
    const link = `${printable(member.name)} is a hard link to ${printable(member.target)}`;
    if (node === undefined) throw fault(`${link}, which does not exist`);
    if (node.kind === 'directory') throw fault(`${link}, which is a directory`);
    return node;
  }

  #split(name: string, fault: Fault): string[] {
    if (name.length > this.#limits.maxPathBytes) throw fault(`the name ${printable(name, 60)} is too long`);
    const parts = this.#parts(name);
    if (parts.includes('..')) throw fault(`it names ${printable(name)}, which leads outside of the image`);
    if (parts.some((part) => part.length > this.#limits.maxNameBytes))
      throw fault(`the name ${printable(name, 60)} is too long`);
    if (name.includes('\0')) throw fault(`it names ${printable(name)}, which is not a valid file name`);
    return parts;
  }

  #parts(path: string): string[] {
    const parts = path.split('/');
    this.#budget.spendSteps(parts.length);
    return parts.filter((part) => part !== '' && part !== '.');
  }

  #directory(path: readonly string[], layer: number, fault: Fault): Directory {
    const make = (parent: Directory, name: string) => {
      if (!parent.entries.has(name)) this.#count(fault);
      return this.#makeDirectory(parent, name, layer);
    };
    return this.#walk(path, fault, make) ?? this.root;
  }

  #find(path: readonly string[], fault: Fault): Directory | undefined {
    return this.#walk(path, fault, () => undefined);
  }

  /** Follows names and symbolic links. `otherwise` decides where a directory is missing. */
  #walk(
    path: readonly string[],
    fault: Fault,
    otherwise: (parent: Directory, name: string) => Directory | undefined,
  ): Directory | undefined {
    const ahead = path.toReversed();
    const above: Directory[] = [];
    let here = this.root;
    let followed = 0;
    for (let name = ahead.pop(); name !== undefined; name = ahead.pop()) {
      if (name === '..') {
        here = above.pop() ?? this.root;
        continue;
      }
      const found = here.entries.get(name);
      if (found?.node.kind === 'leaf' && found.node.member.type === 'symlink') {
        const { target } = found.node.member;
        followed += 1;
        if (followed > this.#limits.maxLinksFollowed)
          throw fault(`${printable(path.join('/'))} is behind a loop of links`);
        if (target.startsWith('/')) {
          here = this.root;
          above.length = 0;
        }
        ahead.push(...this.#parts(target).toReversed());
        continue;
      }
      const next = found?.node.kind === 'directory' ? found.node : undefined;
      const entered = otherwise(here, name) ?? next;
      if (entered === undefined) return undefined;
      above.push(here);
      if (above.length > this.#limits.maxDepth)
        throw fault(`directories are nested more than ${this.#limits.maxDepth} deep`);
      here = entered;
    }
    return here;
  }

  /** Returns the directory of this name, and makes it if it is missing; it then belongs to this layer. */
  #makeDirectory(parent: Directory, name: string, layer: number): Directory {
    const found = parent.entries.get(name);
    if (found?.node.kind === 'directory') {
      found.layer = layer;
      return found.node;
    }
    const node = newDirectory(impliedMeta);
    this.#put(parent, name, { node, layer });
    return node;
  }

  #whiteOut(parent: Directory, name: string, layer: number): void {
    const found = parent.entries.get(name);
    if (found === undefined) return;
    if (found.node.kind === 'directory') this.#dropLower(found.node, layer);
    if (found.layer < layer) parent.entries.delete(name);
  }

  /** Removes the entries of lower layers below the directory, and keeps those of this layer. */
  #dropLower(directory: Directory, layer: number): void {
    this.#budget.spendSteps(directory.entries.size);
    for (const [name, { node, layer: from }] of directory.entries) {
      if (from < layer) directory.entries.delete(name);
      else if (node.kind === 'directory') this.#dropLower(node, layer);
    }
  }
}

const newDirectory = (meta: Meta): Directory => ({ kind: 'directory', meta, entries: new Map() });

const metaOf = ({ mode, uid, gid, mtimeS, mtimeNs, xattrs }: TarMember): Meta => ({
  mode,
  uid,
  gid,
  mtimeS,
  mtimeNs,
  xattrs: xattrs.size === 0 ? xattrs : new Map([...xattrs].map(([name, value]) => [own(name), own(value)])),
});

/** Copies a member without any part of the stream in memory, because there may be a million of them. */
const plain = (member: TarMember): Leaf['member'] => ({
  ...metaOf(member),
  // Linux knows no other of a symbolic link; archives have any.
  ...(member.type === 'symlink' ? { mode: 0o777 } : {}),
  type: member.type,
  size: member.size,
  target: own(member.target),
  device: member.device,
});

/** Copies the text: a substring would keep the whole text in memory, such as a header of 1 MiB. */
const own = (text: string) => Buffer.from(text, 'latin1').toString('latin1');
