/**
 * The metadata of an ONNX file, which the runtime for browsers does not show.
 *
 * An ONNX file is a protobuf message: fields one after another, each a key (its number and the kind
 * of its content) and the content. Of the model, field 7 is the graph and field 14 a pair of
 * strings, the metadata's key (1) and value (2). Source: onnx.proto3.
 */
const GRAPH = 7;
const METADATA = 14;

interface Field {
  number: number;
  /** Of a field with a length; of other fields empty. */
  content: Uint8Array;
}

const NONE = "it is no ONNX file, expected one of a tracker.";

/** Throws a sentence. */
export function metadataOf(bytes: Uint8Array): Map<string, string> {
  const found = new Map<string, string>();
  let graphs = 0;
  for (const { number, content } of fields(bytes)) {
    if (number === GRAPH) graphs += 1;
    if (number !== METADATA) continue;
    const pair = ["", "", ""];
    for (const part of fields(content)) pair[part.number] = new TextDecoder().decode(part.content);
    found.set(pair[1], pair[2]);
  }
  if (graphs !== 1) throw new Error(NONE);
  return found;
}

function* fields(bytes: Uint8Array): Generator<Field> {
  let at = 0;
  const number = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || factor > 2 ** 63) throw new Error(NONE);
      value += (byte % 128) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = number();
    const kind = key % 8;
    let size = 0;
    if (kind === 0) number();
    else if (kind === 1) size = 8;
    else if (kind === 2) size = number();
    else if (kind === 5) size = 4;
    else throw new Error(NONE);
    if (at + size > bytes.length) throw new Error(NONE);
    const content = kind === 2 ? bytes.subarray(at, at + size) : bytes.subarray(0, 0);
    at += size;
    yield { number: Math.floor(key / 8), content };
  }
}
