// The same request from a terminal and from programs. The key is read from the environment.

import { emotionsAddress, mediaType } from "./api.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** `part`: the field of the answer that has the faces or the group. */
export const SNIPPETS = {
  curl({ name, type, address, key }) {
    const parts = [
      `curl --data-binary ${quoted(`@${name}`)}`,
      `-H 'Content-Type: ${type}'`,
      ...(key ? ['-H "X-API-Key: $EMOTIONS_KEY"'] : []),
      quoted(address),
    ];
    return parts.join(" \\\n  ");
  },

  Python({ name, type, address, key, part }) {
    return `${key ? "import os\n" : ""}from pathlib import Path

import httpx

answer = httpx.post(
    ${JSON.stringify(address)},
    content=Path(${JSON.stringify(name)}).read_bytes(),
    headers={"Content-Type": "${type}"${key ? ', "X-API-Key": os.environ["EMOTIONS_KEY"]' : ""}},
)
answer.raise_for_status()
print(answer.json()["${part}"])`;
  },

  JavaScript({ name, type, address, key, part }) {
    return `import { readFile } from "node:fs/promises";

const answer = await fetch(${JSON.stringify(address)}, {
  method: "POST",
  body: await readFile(${JSON.stringify(name)}),
  headers: { "Content-Type": "${type}"${key ? ', "X-API-Key": process.env.EMOTIONS_KEY' : ""} },
});
if (!answer.ok) throw new Error(await answer.text());
console.log((await answer.json()).${part});`;
  },
};

/** What a snippet says about a request. */
export function requestOf(service, photo, query, key, answer) {
  return {
    name: photo.name,
    type: mediaType(service, photo),
    address: emotionsAddress(query).href.replaceAll("%2C", ","),
    key: Boolean(key),
    part: answer.group ? "group" : "faces",
  };
}
