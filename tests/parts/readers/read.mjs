// Answers each line of JSON with one of JSON: what mailparser and postal-mime show of a message, or what two tables make
// of the octets of a charset.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import iconv from "iconv-lite";
import { simpleParser } from "mailparser";
import PostalMime from "postal-mime";

// postal-mime drops carriage returns, and adds a line feed at the end, where a part is not in base64.
const digest = (octets) =>
  createHash("md5")
    .update(Buffer.from(octets ?? "").toString("latin1").replaceAll("\r\n", "\n").replace(/\n+$/, ""), "latin1")
    .digest("hex");
const skip = { skipHtmlToText: true, skipTextToHtml: true, skipImageLinks: true, skipTextLinks: true };

async function attempt(show) {
  try {
    return await show();
  } catch (error) {
    return { error: String(error).slice(0, 80) };
  }
}

async function mailparser(octets) {
  const { subject, from, replyTo, text, html, attachments } = await simpleParser(octets, skip);
  const files = attachments.map((a) => [a.filename ?? null, a.contentType, digest(a.content), a.contentDisposition ?? null]);
  return { subject, from: from?.text, replyTo: replyTo?.text, text, html: html || null, files };
}

async function postalMime(octets) {
  const { subject, from, text, html, attachments } = await PostalMime.parse(octets);
  const files = attachments.map((a) => [a.filename ?? null, a.mimeType, digest(a.content), a.disposition ?? null]);
  return { subject, from, text, html, files };
}

function decode(charset, codes) {
  const octets = codes.map((code) => Buffer.from(code, "hex"));
  let standard = null;
  try {
    const decoder = new TextDecoder(charset);
    standard = octets.map((some) => decoder.decode(some));
  } catch {
    // The Encoding Standard does not know this charset.
  }
  return { standard, iconvLite: iconv.encodingExists(charset) ? octets.map((some) => iconv.decode(some, charset)) : null };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { message, charset, codes } = JSON.parse(line);
  const octets = Buffer.from(message ?? "", "base64");
  const shown = codes
    ? decode(charset, codes)
    : { mailparser: await attempt(() => mailparser(octets)), postalMime: await attempt(() => postalMime(octets)) };
  process.stdout.write(`${JSON.stringify(shown)}\n`);
}
