// Registers, lists, watches and leads with Apache Curator, for tests that see how it and we get on with each other.
//
//     curator SERVERS SESSION_MILLISECONDS
//
// Does what each line of its standard input says, words between spaces, and ends politely when there are no more:
//
//     register BASE NAME ID ADDRESS PORT PAYLOAD     a DYNAMIC instance; the payload, a JSON value without spaces
//     update BASE NAME ID ADDRESS PORT PAYLOAD
//     unregister BASE NAME ID
//     names BASE
//     list BASE NAME
//     watch BASE NAME                                a ServiceCache
//     join PATH ID                                   a LeaderLatch
//     leave ID
//     leader PATH                                    who leads
//     write ID REGISTER                              as long as ID leads, again and again, only if its node is there
//
// Prints a line of JSON for each thing done or seen. Times are those of System.nanoTime, which is CLOCK_MONOTONIC.

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorOp;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.framework.recipes.leader.Participant;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryForever;
import org.apache.curator.x.discovery.ServiceCache;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.ServiceInstanceBuilder;
import org.apache.curator.x.discovery.ServiceType;
import org.apache.curator.x.discovery.UriSpec;
import org.apache.curator.x.discovery.details.ServiceCacheListener;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.data.Stat;

public final class Peer {
    private static final int CONNECTED_WITHIN_MILLISECONDS = 3000;
    private static final int BETWEEN_TRIES_MILLISECONDS = 50;
    private static final ObjectMapper JSON = new ObjectMapper();

    private final CuratorFramework client;
    private final Map<String, ServiceDiscovery<Object>> discoveries = new ConcurrentHashMap<>();
    private final Map<String, LeaderLatch> latches = new ConcurrentHashMap<>();
    private final List<ServiceCache<Object>> caches = new ArrayList<>();

    private Peer(CuratorFramework client) {
        this.client = client;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 2) {
            System.err.println("usage: curator SERVERS SESSION_MILLISECONDS");
            System.exit(2);
        }
        CuratorFramework client =
                CuratorFrameworkFactory.newClient(
                        arguments[0],
                        Integer.parseInt(arguments[1]),
                        CONNECTED_WITHIN_MILLISECONDS,
                        new RetryForever(BETWEEN_TRIES_MILLISECONDS));
        client.getConnectionStateListenable()
                .addListener((of, state) -> tell("connection", "state", state.name()));
        client.start();
        Peer peer = new Peer(client);
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            try {
                peer.obey(line.split(" "));
            } catch (Exception failure) {
                tell("failed", "line", line, "error", failure.toString());
            }
        }
        peer.close();
        // Threads of the client's may outlive it.
        System.exit(0);
    }

    private void obey(String[] words) throws Exception {
        switch (words[0]) {
            case "register":
                discovery(words[1]).registerService(instance(words));
                tell("registered", "id", words[3]);
                break;
            case "update":
                discovery(words[1]).updateService(instance(words));
                tell("updated", "id", words[3]);
                break;
            case "unregister":
                discovery(words[1]).unregisterService(instance(words[2], words[3]).build());
                tell("unregistered", "id", words[3]);
                break;
            case "names":
                tell("names", "names", discovery(words[1]).queryForNames());
                break;
            case "list":
                tell("list", "instances", shown(discovery(words[1]).queryForInstances(words[2])));
                break;
            case "watch":
                watch(discovery(words[1]).serviceCacheBuilder().name(words[2]).build());
                break;
            case "join":
                join(words[1], words[2]);
                break;
            case "leave":
                long began = System.nanoTime();
                latches.remove(words[1]).close(LeaderLatch.CloseMode.NOTIFY_LEADER);
                tell("left", "id", words[1], "began", began);
                break;
            case "leader":
                leader(words[1]);
                break;
            case "write":
                write(words[1], words[2]);
                break;
            default:
                throw new IllegalArgumentException("unknown command");
        }
    }

    private ServiceDiscovery<Object> discovery(String base) throws Exception {
        ServiceDiscovery<Object> known = discoveries.get(base);
        if (known != null) {
            return known;
        }
        ServiceDiscovery<Object> made =
                ServiceDiscoveryBuilder.builder(Object.class).client(client).basePath(base).build();
        made.start();
        discoveries.put(base, made);
        return made;
    }

    private static ServiceInstanceBuilder<Object> instance(String name, String id)
            throws Exception {
        return ServiceInstance.builder().name(name).id(id).serviceType(ServiceType.DYNAMIC);
    }

    private static ServiceInstance<Object> instance(String[] words) throws Exception {
        return instance(words[2], words[3])
                .address(words[4])
                .port(Integer.parseInt(words[5]))
                .payload(JSON.readValue(words[6], Object.class))
                .uriSpec(new UriSpec("{scheme}://{address}:{port}"))
                .build();
    }

    private void watch(ServiceCache<Object> cache) throws Exception {
        caches.add(cache);
        cache.addListener(
                new ServiceCacheListener() {
                    @Override
                    public void cacheChanged() {
                        tell("watched", "instances", shown(cache.getInstances()));
                    }

                    @Override
                    public void stateChanged(CuratorFramework of, ConnectionState state) {}
                });
        cache.start();
        tell("watched", "instances", shown(cache.getInstances()));
    }

    private static List<Map<String, Object>> shown(Collection<ServiceInstance<Object>> instances) {
        List<Map<String, Object>> all = new ArrayList<>();
        for (ServiceInstance<Object> instance : instances) {
            Map<String, Object> one = new LinkedHashMap<>();
            one.put("id", instance.getId());
            one.put("address", instance.getAddress());
            one.put("port", instance.getPort());
            one.put("payload", instance.getPayload());
            one.put("enabled", instance.isEnabled());
            all.add(one);
        }
        return all;
    }

    private void join(String path, String id) throws Exception {
        LeaderLatch latch = new LeaderLatch(client, path, id, LeaderLatch.CloseMode.NOTIFY_LEADER);
        latch.addListener(
                new LeaderLatchListener() {
                    @Override
                    public void isLeader() {
                        tell("leads", "id", id, "node", latch.getOurPath());
                    }

                    @Override
                    public void notLeader() {
                        tell("ended", "id", id);
                    }
                });
        latches.put(id, latch);
        latch.start();
        tell("joined", "id", id);
    }

    private void leader(String path) throws Exception {
        // Takes part in nothing, as it is not started.
        LeaderLatch latch = new LeaderLatch(client, path);
        Participant leader = latch.getLeader();
        tell("leader", "id", leader.getId(), "participants", latch.getParticipants().size());
    }

    private void write(String id, String register) {
        LeaderLatch latch = latches.get(id);
        Thread writer =
                new Thread(
                        () -> {
                            while (latch.getState() != LeaderLatch.State.CLOSED) {
                                try {
                                    writeOnce(latch, id, register);
                                    Thread.sleep(1);
                                } catch (Exception failure) {
                                    tell("not written", "id", id, "error", failure.toString());
                                }
                            }
                        });
        writer.setDaemon(true);
        writer.start();
    }

    /** What a leader writes is its token, and whether it may is decided by ZooKeeper. */
    private void writeOnce(LeaderLatch latch, String id, String register) throws Exception {
        String node = latch.getOurPath();
        if (!latch.hasLeadership() || node == null) {
            return;
        }
        Stat own = client.checkExists().forPath(node);
        if (own == null) {
            return;
        }
        String token = Long.toString(own.getCzxid());
        List<CuratorOp> steps =
                List.of(
                        client.transactionOp().check().forPath(node),
                        client.transactionOp()
                                .setData()
                                .forPath(register, token.getBytes(StandardCharsets.UTF_8)));
        long sent = System.nanoTime();
        try {
            List<CuratorTransactionResult> done = client.transaction().forOperations(steps);
            int version = done.get(1).getResultStat().getVersion();
            tell("wrote", "id", id, "token", own.getCzxid(), "version", version, "sent", sent);
        } catch (KeeperException.NoNodeException refused) {
            tell("refused", "id", id, "token", own.getCzxid());
        }
    }

    private void close() throws Exception {
        for (ServiceCache<Object> cache : caches) {
            cache.close();
        }
        for (LeaderLatch latch : latches.values()) {
            latch.close();
        }
        for (ServiceDiscovery<Object> discovery : discoveries.values()) {
            discovery.close();
        }
        client.close();
    }

    private static void tell(String event, Object... fields) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("event", event);
        for (int field = 0; field < fields.length; field += 2) {
            line.put((String) fields[field], fields[field + 1]);
        }
        line.put("at", System.nanoTime());
        try {
            String text = JSON.writeValueAsString(line);
            synchronized (System.out) {
                System.out.println(text);
                System.out.flush();
            }
        } catch (Exception failure) {
            throw new IllegalStateException(failure);
        }
    }
}
