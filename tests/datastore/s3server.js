// SPDX-License-Identifier: BSD-3-Clause
//
// s3server.js DIRECTORY PORT BUCKET: s3rver, a server that speaks as S3 does, with what it lacks and S3 has:
//   - signatures (version 4) are verified, by the published rules and not by what a client does
//   - an object is replaced as a whole: a server that is killed leaves no half, and a reader sees none
// And with faults, as PUT /-/faults gets them, a JSON object:
//   - every, status, code: each of so many requests is answered with this error
//   - once, status, code: the next PUT of this name is
//   - late, ms: the next PUT of this name is carried out so much later, also when its client has gone meanwhile
//   - stranger: everything is answered with a 404 of a server that is none of S3
'use strict';

const crypto = require('crypto');
const http = require('http');
const path = require('path');
const npm = path.join(__dirname, '../../build/npm/node_modules');
const fs = require(path.join(npm, 'fs-extra'));
const S3rver = require(path.join(npm, 's3rver'));
const FilesystemStore = require(path.join(npm, 's3rver/lib/stores/filesystem'));

const [directory, port, bucket] = process.argv.slice(2);
const accounts = { S3RVER: 'S3RVER' };

const sha256 = data => crypto.createHash('sha256').update(data).digest('hex');
const hmac = (key, data) => crypto.createHmac('sha256', key).update(data).digest();
const escape = text =>
  encodeURIComponent(text).replace(/[!'()*]/g, c => '%' + c.charCodeAt(0).toString(16).toUpperCase());

// What the signature must be; '' when the request has none that could be right.
function signatureOf(req, secret, scope, names) {
  const [rawPath, rawQuery = ''] = req.url.split('?');
  const query = rawQuery === '' ? [] : rawQuery.split('&').map(pair => {
    const [name, value = ''] = pair.split('=');
    return escape(decodeURIComponent(name)) + '=' + escape(decodeURIComponent(value));
  });
  const mustSign = ['host', ...Object.keys(req.headers).filter(h => h.startsWith('x-amz-'))];

  if (mustSign.some(h => !names.includes(h))) return '';
  const canonical = [
    req.method,
    rawPath.split('/').map(part => escape(decodeURIComponent(part))).join('/'),
    query.sort().join('&'),
    ...names.map(h => h + ':' + (req.headers[h] || '').trim().replace(/ +/g, ' ')),
    '',
    names.join(';'),
    req.headers['x-amz-content-sha256'],
  ].join('\n');
  const toSign = ['AWS4-HMAC-SHA256', req.headers['x-amz-date'], scope.join('/'), sha256(canonical)].join('\n');
  const key = scope.reduce((k, part) => hmac(k, part), 'AWS4' + secret);

  return hmac(key, toSign).toString('hex');
}

// The code of what is wrong with a request's signature; '' if nothing is.
function refusal(req) {
  const m = /^AWS4-HMAC-SHA256 Credential=([^,]*), ?SignedHeaders=([^,]*), ?Signature=([0-9a-f]*)$/
    .exec(req.headers.authorization || '');

  if (!m) return 'AccessDenied';
  const [account, ...scope] = m[1].split('/');

  if (!(account in accounts)) return 'InvalidAccessKeyId';
  if (!/^([0-9a-f]{64}|UNSIGNED-PAYLOAD)$/.test(req.headers['x-amz-content-sha256'] || '')) return 'InvalidArgument';
  if (scope.length !== 4 || scope[3] !== 'aws4_request') return 'AuthorizationHeaderMalformed';
  return signatureOf(req, accounts[account], scope, m[2].split(';')) === m[3] ? '' : 'SignatureDoesNotMatch';
}

// The body is what its header says. A client that lies here is a fault that must not be missed.
function watchBody(req) {
  const want = req.headers['x-amz-content-sha256'];
  const hash = crypto.createHash('sha256');
  const push = req.push.bind(req);

  req.push = chunk => {
    if (chunk !== null) hash.update(chunk);
    else if (want !== 'UNSIGNED-PAYLOAD' && want !== hash.digest('hex')) {
      console.error('s3server: the body is not what x-amz-content-sha256 says: ' + req.url);
      process.exit(1);
    }
    return push(chunk);
  };
}

FilesystemStore.prototype.putObject = async function (object) {
  const chunks = [];

  if (Buffer.isBuffer(object.content)) chunks.push(object.content);
  else for await (const chunk of object.content) chunks.push(chunk);
  const data = Buffer.concat(chunks);
  const md5 = crypto.createHash('md5').update(data).digest('hex');
  const place = resource => this.getResourcePath(object.bucket, object.key, resource);
  const metadata = Object.fromEntries(Object.entries(object.metadata).filter(([name]) =>
    name.startsWith('x-amz-meta-') || name.startsWith('content-')));
  const files = [['object', data], ['object.md5', md5], ['metadata.json', JSON.stringify(metadata)]];

  for (;;)
    try {
      fs.mkdirpSync(path.dirname(place('object')));
      for (const [resource, content] of files) fs.writeFileSync(place(resource) + '.new', content);
      for (const [resource] of files) fs.renameSync(place(resource) + '.new', place(resource));
      return { size: data.length, md5 };
    } catch (e) {
      if (e.code !== 'ENOENT') throw e; // somebody has deleted the last object of the folder
    }
};

// What a server that was killed left: an object whose first file has its place gets the others, else it goes.
function finishPuts(folder) {
  const entries = fs.readdirSync(folder, { withFileTypes: true });
  const isNew = name => name.endsWith('.new');
  const first = name => name.replace(/(\._S3rver_).*\.new$/, '$1object.new');

  for (const entry of entries.filter(e => e.isDirectory())) finishPuts(path.join(folder, entry.name));
  for (const { name } of entries.filter(e => e.isFile() && isNew(e.name) && e.name !== first(e.name))) {
    const file = path.join(folder, name);

    if (fs.existsSync(path.join(folder, first(name)))) fs.unlinkSync(file);
    else fs.renameSync(file, file.slice(0, -'.new'.length));
  }
  for (const { name } of entries.filter(e => e.isFile() && isNew(e.name) && e.name === first(e.name)))
    fs.unlinkSync(path.join(folder, name));
}

// s3rver reads and deletes an object's files one after the other: so requests are served one after the other.
let last = Promise.resolve();

function inTurn(req, res, serve) {
  last = last.then(() => new Promise(done => {
    if (res.destroyed || req.destroyed) {
      done();
      return;
    }
    res.on('close', done);
    serve(req, res);
  }));
}

let faults = {};
let served = 0;

function answer(req, res, status, type, text) {
  res.writeHead(status, { 'Content-Type': type });
  res.end(req.method === 'HEAD' ? undefined : text);
  req.resume();
}

function refuse(req, res, status, code) {
  answer(req, res, status, 'application/xml', `<?xml version="1.0"?><Error><Code>${code}</Code></Error>`);
}

function withBody(req, then) {
  const chunks = [];

  req.on('data', chunk => chunks.push(chunk));
  req.on('end', () => then(Buffer.concat(chunks)));
}

// Whether a request meets a fault, which then answers it.
function isFaulty(req, res, store) {
  const name = decodeURIComponent(req.url.slice(bucket.length + 2));
  const isPut = req.method === 'PUT';

  if (faults.stranger) {
    answer(req, res, 404, 'text/plain', 'default backend - 404');
  } else if (isPut && name === faults.once) {
    faults.once = undefined;
    refuse(req, res, faults.status, faults.code);
  } else if (isPut && name === faults.late) {
    faults.late = undefined;
    withBody(req, content => setTimeout(async () => {
      await store.putObject({ bucket, key: name, content, metadata: req.headers });
      res.writeHead(200);
      res.end();
    }, faults.ms));
  } else if (faults.every && ++served % faults.every === 0) {
    refuse(req, res, faults.status, faults.code);
  } else {
    return false;
  }
  return true;
}

async function main() {
  finishPuts(directory);
  const s3 = new S3rver({ directory, silent: true, configureBuckets: [{ name: bucket }] });

  await s3.configureBuckets();
  const serve = s3.callback();
  const store = new FilesystemStore(directory);

  http.createServer((req, res) => {
    if (req.url === '/-/faults') {
      withBody(req, body => {
        faults = JSON.parse(body);
        res.end();
      });
      return;
    }
    const code = refusal(req);

    watchBody(req);
    if (code !== '') refuse(req, res, 403, code);
    else if (!isFaulty(req, res, store)) inTurn(req, res, serve);
  }).listen(Number(port), '127.0.0.1');
}

main();
