// Sends one message with nodemailer.
//
//   node send.mjs < job.json     prints the server's last reply, or ends with 1
//
// The job: {"host": "...", "port": 25, "secure": "", "tls" or "ssl", "login": [NAME, PASSWORD] or null,
// "from": "...", "to": "...", "subject": "..."}

import { text } from 'node:stream/consumers';

import nodemailer from 'nodemailer';

const job = JSON.parse(await text(process.stdin));
const transport = nodemailer.createTransport({
  host: job.host,
  port: job.port,
  secure: job.secure === 'ssl',
  requireTLS: job.secure === 'tls',
  tls: { rejectUnauthorized: false },
  auth: job.login ? { user: job.login[0], pass: job.login[1] } : undefined,
});
const sent = await transport.sendMail({ from: job.from, to: job.to, subject: job.subject, text: 'hello' });
console.log(sent.response);
