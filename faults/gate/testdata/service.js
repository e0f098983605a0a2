// A service that knows nothing of tokens. It believes the headers of the proxy,
// answers with them, and prints each request as one line of JSON.
const http = require('http');

const quiet = process.env.QUIET !== undefined;
const server = http.createServer((req, res) => {
  const body = [];
  req.on('data', (part) => body.push(part));
  req.on('end', () => {
    if (!quiet) {
      process.stdout.write(JSON.stringify({
        method: req.method, url: req.url, tag: req.headers['x-tag'] || '', headers: req.rawHeaders, body: Buffer.concat(body).toString(),
      }) + '\n');
    }
    if (req.url === '/fails') {
      res.statusCode = 500;
    }
    res.setHeader('Content-Type', 'application/json');
    res.setHeader('Set-Cookie', 'theme=dark; Path=/');
    res.end(JSON.stringify({
      subject: req.headers['x-session-subject'], id: req.headers['x-session-id'],
      audience: req.headers['x-session-audience'], state: JSON.parse(req.headers['x-session-state'] || 'null'),
    }));
  });
});
server.keepAliveTimeout = 120000;
server.listen(Number(process.env.PORT), '127.0.0.1', () => process.stdout.write('"ready"\n'));
