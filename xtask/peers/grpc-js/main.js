// A server and clients of grpc-js for gRPC's public interop cases, and a client that counts what fails.
//
//   grpc-js server [-max-connection-age MS] [-max-connection-age-grace MS] [-max-connection-idle MS]
//   grpc-js client -addresses HOST:PORT,... CASE...
//   grpc-js load -addresses HOST:PORT,... -callers N [-pause MS]
//
// The server prints its address as a line of JSON. The client prints the name of each case that passed, and ends with an error at the
// first that did not. The server and the load go on until standard input ends; the load prints its counts then, as a line of JSON.
'use strict';

const assert = require('node:assert');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const definition = loader.loadSync(path.join(__dirname, 'interop.proto'), { keepCase: true, defaults: true });
const { TestService } = grpc.loadPackageDefinition(definition).grpc.testing;

// Longer than a case takes on a busy machine.
const SOON = 20_000;
const GZIP = 2;

const sum = (sizes) => sizes.reduce((all, size) => all + size, 0);
const payload = (size) => ({ body: Buffer.alloc(size) });
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

function untilDismissed() {
  process.stdin.resume();
  return new Promise((resolve) => process.stdin.once('end', resolve));
}

// Flags with their values, then words.
function parse(words) {
  const flags = {};
  while (words.length > 0 && words[0].startsWith('-')) {
    flags[words[0].slice(1)] = words[1];
    words = words.slice(2);
  }
  return { flags, words };
}

// --- The server ---

// Sends back the metadata that the cases ask for, the one at the beginning now; returns the one for the end.
function echo(call) {
  const initial = call.metadata.get('x-grpc-test-echo-initial');
  if (initial.length > 0) {
    const metadata = new grpc.Metadata();
    metadata.set('x-grpc-test-echo-initial', initial[0]);
    call.sendMetadata(metadata);
  }
  const trailing = new grpc.Metadata();
  for (const value of call.metadata.get('x-grpc-test-echo-trailing-bin')) {
    trailing.set('x-grpc-test-echo-trailing-bin', value);
  }
  return trailing;
}

function failure(status) {
  return status && status.code !== 0 ? { code: status.code, details: status.message } : null;
}

const size = (message) => (message.payload ? message.payload.body.length : 0);

const service = {
  EmptyCall: (call, answer) => answer(null, {}),
  UnaryCall: (call, answer) => {
    const trailing = echo(call);
    const { response_status, response_size } = call.request;
    answer(failure(response_status), { payload: payload(response_size) }, trailing);
  },
  StreamingInputCall: (call, answer) => {
    let all = 0;
    call.on('data', (request) => { all += size(request); });
    call.on('end', () => answer(null, { aggregated_payload_size: all }));
  },
  StreamingOutputCall: (call) => {
    for (const { size } of call.request.response_parameters) {
      call.write({ payload: payload(size) });
    }
    call.end();
  },
  FullDuplexCall: (call) => {
    const trailing = echo(call);
    call.on('data', (request) => {
      const failed = failure(request.response_status);
      if (failed) {
        call.emit('error', failed);
        return;
      }
      for (const { size } of request.response_parameters) {
        call.write({ payload: payload(size) });
      }
    });
    call.on('end', () => call.end(trailing));
  },
};

async function serve({ flags }) {
  const options = {};
  for (const name of ['max-connection-age', 'max-connection-age-grace', 'max-connection-idle']) {
    if (flags[name] !== undefined) {
      options[`grpc.${name.replaceAll('-', '_')}_ms`] = Number(flags[name]);
    }
  }
  const server = new grpc.Server(options);
  server.addService(TestService.service, service);
  const port = await new Promise((resolve, reject) => {
    const credentials = grpc.ServerCredentials.createInsecure();
    server.bindAsync('127.0.0.1:0', credentials, (error, port) => (error ? reject(error) : resolve(port)));
  });
  tell({ address: `127.0.0.1:${port}` });
  await untilDismissed();
  server.forceShutdown();
}

// --- The clients ---

// In turn to each of the addresses.
function connect(addresses, options = {}) {
  return new TestService(`ipv4:${addresses}`, grpc.credentials.createInsecure(), {
    'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    ...options,
  });
}

const soon = () => ({ deadline: Date.now() + SOON });

// The response of a method with one response.
function unary(client, method, request, options = soon()) {
  return new Promise((resolve, reject) => {
    client[method](request, options, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

async function fails(work, code) {
  const error = await work.then(() => assert.fail('it was answered'), (error) => error);
  assert.strictEqual(error.code, code, String(error));
  return error;
}

const REQUEST_SIZES = [27182, 8, 1828, 45904];
const RESPONSE_SIZES = [31415, 9, 2653, 58979];
const LARGE = { response_size: 314159, payload: payload(271828) };

async function largeUnary(client) {
  const response = await unary(client, 'UnaryCall', LARGE);
  assert.strictEqual(size(response), LARGE.response_size);
}

const cases = {
  empty_unary: (client) => unary(client, 'EmptyCall', {}),
  large_unary: largeUnary,
  client_streaming: async (client) => {
    const response = await new Promise((resolve, reject) => {
      const call = client.StreamingInputCall(soon(), (error, response) => (error ? reject(error) : resolve(response)));
      REQUEST_SIZES.forEach((size) => call.write({ payload: payload(size) }));
      call.end();
    });
    assert.strictEqual(response.aggregated_payload_size, sum(REQUEST_SIZES));
  },
  server_streaming: async (client) => {
    const response_parameters = RESPONSE_SIZES.map((size) => ({ size }));
    const got = [];
    for await (const response of client.StreamingOutputCall({ response_parameters }, soon())) {
      got.push(size(response));
    }
    assert.deepStrictEqual(got, RESPONSE_SIZES);
  },
  ping_pong: async (client) => {
    const call = client.FullDuplexCall(soon());
    const ping = (nth) => call.write({
      payload: payload(REQUEST_SIZES[nth]),
      response_parameters: [{ size: RESPONSE_SIZES[nth] }],
    });
    let nth = 0;
    ping(nth);
    for await (const response of call) {
      assert.strictEqual(size(response), RESPONSE_SIZES[nth]);
      nth += 1;
      if (nth < REQUEST_SIZES.length) {
        ping(nth);
      } else {
        call.end();
      }
    }
    assert.strictEqual(nth, REQUEST_SIZES.length);
  },
  special_status_message: async (client) => {
    const message = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
    const response_status = { code: grpc.status.UNKNOWN, message };
    const error = await fails(unary(client, 'UnaryCall', { response_status }), grpc.status.UNKNOWN);
    assert.strictEqual(error.details, message);
  },
  unimplemented_method: (client) => fails(unary(client, 'UnimplementedCall', {}), grpc.status.UNIMPLEMENTED),
  timeout_on_sleeping_server: async (client) => {
    const call = client.FullDuplexCall({ deadline: Date.now() + 1 });
    call.on('data', () => {});
    call.write({ payload: payload(REQUEST_SIZES[0]) });
    await fails(new Promise((resolve, reject) => call.on('error', reject)), grpc.status.DEADLINE_EXCEEDED);
  },
  gzip: async (client, addresses) => {
    const compressing = connect(addresses, { 'grpc.default_compression_algorithm': GZIP });
    await largeUnary(compressing);
    compressing.close();
  },
};

async function callCases({ flags, words }) {
  const client = connect(flags.addresses);
  for (const name of words) {
    assert.ok(Object.hasOwn(cases, name), `unknown case: ${name}`);
    await cases[name](client, flags.addresses);
    process.stdout.write(`${name}\n`);
  }
  client.close();
}

async function callUntilDismissed({ flags }) {
  const client = connect(flags.addresses);
  const all = { calls: 0, failed: 0 };
  let dismissed = false;
  const caller = async () => {
    while (!dismissed) {
      all.calls += 1;
      try {
        await unary(client, 'EmptyCall', {});
      } catch (error) {
        all.failed += 1;
        all.error = String(error);
      }
      // Also without a pause, other callers and standard input must get their turns.
      await new Promise((resolve) => setTimeout(resolve, Number(flags.pause ?? 0)));
    }
  };
  const callers = Array.from({ length: Number(flags.callers) }, caller);
  await untilDismissed();
  dismissed = true;
  await Promise.all(callers);
  client.close();
  tell(all);
}

const modes = { server: serve, client: callCases, load: callUntilDismissed };

async function main([mode, ...words]) {
  assert.ok(Object.hasOwn(modes, mode ?? ''), 'neither server nor client nor load');
  await modes[mode](parse(words));
}

main(process.argv.slice(2)).catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
