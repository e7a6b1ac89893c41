import java.io.IOException;
import java.lang.reflect.AccessibleObject;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;

/**
 * SPICE's F of each sample: SpiceLauncher CAPTIONS SAMPLES SCORES CACHE THREADS BATCH.
 *
 * <p>CAPTIONS holds one caption a line, each once; SAMPLES one sample a line, the caption's number of its prediction
 * and then those of its references. SCORES receives one number a line, in the samples' order. CACHE is a folder of
 * parses.
 *
 * <p>Parsing, scene graphs and scores are SPICE 1.0's own, called by name. What differs from its entry point: a
 * caption is parsed once however often it occurs; parses are kept after every BATCH captions, so that a killed run
 * loses little and memory stays small; a caption of any length is kept (LMDB's keys hold 511 bytes, so they are
 * digests here), each with a check sum, and a damaged entry is parsed again; named entities, which SPICE has
 * recognized and never reads, are left out, half of its start; nothing is printed by JavaScript, which left Java in
 * version 15. Exit code 3 says that the cache cannot be read or written. Standard input stays open as
 * long as somebody waits for the scores.
 */
public class SpiceLauncher implements Runnable {
  private static final String CHECK = "#sha256";
  private static final int BROKEN_CACHE = 3;
  private static final int PARENT_GONE = 4;

  public static void main(String[] args) throws Exception {
    endWithParent();
    List<String> captions = lines(args[0]);
    List<String> samples = lines(args[1]);
    Path scores = Paths.get(args[2]);
    int batch = Integer.parseInt(args[5]);
    Object cache = make("LmdbTupleDB", args[3]);
    Object parser = make("SpiceParser", null, Integer.parseInt(args[4]), true);

    Map<String, ArrayList<ArrayList<String>>> tuples = known(cache, captions);
    List<String> missing = new ArrayList<String>(captions);
    missing.removeAll(tuples.keySet());
    if (!missing.isEmpty()) {
      leaveOutEntities(get(parser, "annotator"), args[4]);
    }
    System.err.println(captions.size() + " captions, " + tuples.size() + " of them parsed before");
    for (int start = 0; start < missing.size(); start += batch) {
      List<String> some = missing.subList(start, Math.min(start + batch, missing.size()));
      Map<String, ArrayList<ArrayList<String>>> parsed = cast(call(parser, "generateTuples", some));
      keep(cache, parsed);
      tuples.putAll(parsed);
      System.err.println("parsed " + (start + some.size()) + " of " + missing.size());
    }

    Object stats = make("SpiceStats", new HashMap<Object, Object>(), false);
    for (int number = 0; number < samples.size(); number++) {
      String[] fields = samples.get(number).split(" ");
      Object prediction = scene(parser, tuples, captions, Arrays.copyOfRange(fields, 0, 1));
      Object references = scene(parser, tuples, captions, Arrays.copyOfRange(fields, 1, fields.length));
      call(stats, "score", number, prediction, references, true);
    }
    List<String> found = new ArrayList<String>();
    for (Object score : (Collection<?>) get(stats, "scores")) {
      found.add(String.valueOf(get(((Map<?, ?>) score).get("All"), "f")));
    }
    Files.write(scores, found, StandardCharsets.US_ASCII);
    System.exit(0);
  }

  /** Give SPICE's annotator its own pipeline of CoreNLP but for named entities, which SPICE never reads. */
  private static void leaveOutEntities(Object annotator, String threads) throws Exception {
    Properties properties = new Properties();
    properties.setProperty("annotators", "tokenize,ssplit,parse,lemma");
    properties.setProperty("depparse.extradependencies", "MAXIMAL");
    properties.setProperty("threads", threads);
    Class<?> pipeline = Class.forName("edu.stanford.nlp.pipeline.StanfordCoreNLP");
    Field field = annotator.getClass().getDeclaredField("pipeline");
    open(field).set(annotator, pipeline.getConstructor(Properties.class).newInstance(properties));
  }

  /** End when the process that started this one is gone: it holds the other end of standard input. */
  private static void endWithParent() {
    Thread watcher = new Thread(new SpiceLauncher());
    watcher.setDaemon(true);
    watcher.start();
  }

  @Override
  public void run() {
    try {
      while (System.in.read() >= 0) {}
    } catch (IOException gone) {
      // the same as the end of the stream
    }
    Runtime.getRuntime().halt(PARENT_GONE);
  }

  /** The scene graph of all captions of one side of a sample. */
  private static Object scene(
      Object parser, Map<String, ArrayList<ArrayList<String>>> tuples, List<String> captions, String[] numbers)
      throws Exception {
    Object graph = make("SceneGraph", get(parser, "synonyms"), true);
    for (String number : numbers) {
      for (ArrayList<String> tuple : tuples.get(captions.get(Integer.parseInt(number)))) {
        call(graph, "addTuple", tuple);
      }
    }
    return graph;
  }

  /** Tuples of those captions that the cache holds undamaged. */
  private static Map<String, ArrayList<ArrayList<String>>> known(Object cache, List<String> captions)
      throws Exception {
    List<String> keys = new ArrayList<String>();
    for (String caption : captions) {
      keys.add(sha256(caption));
    }
    Map<String, ArrayList<ArrayList<String>>> found = new HashMap<String, ArrayList<ArrayList<String>>>();
    try {
      found = cast(call(cache, "getTransaction", keys));
    } catch (Throwable error) {
      giveUp(error);
    }
    Map<String, ArrayList<ArrayList<String>>> tuples = new HashMap<String, ArrayList<ArrayList<String>>>();
    for (int index = 0; index < captions.size(); index++) {
      ArrayList<ArrayList<String>> entry = found.get(keys.get(index));
      if (entry != null && !entry.isEmpty()) {
        ArrayList<String> check = entry.remove(entry.size() - 1);
        if (check.equals(check(captions.get(index), entry))) {
          tuples.put(captions.get(index), entry);
        }
      }
    }
    return tuples;
  }

  private static void keep(Object cache, Map<String, ArrayList<ArrayList<String>>> parsed) {
    try {
      Map<String, ArrayList<ArrayList<String>>> entries = new LinkedHashMap<String, ArrayList<ArrayList<String>>>();
      for (Map.Entry<String, ArrayList<ArrayList<String>>> one : parsed.entrySet()) {
        ArrayList<ArrayList<String>> entry = new ArrayList<ArrayList<String>>(one.getValue());
        entry.add(check(one.getKey(), one.getValue()));
        entries.put(sha256(one.getKey()), entry);
      }
      call(cache, "putTransaction", entries);
    } catch (Throwable error) {
      giveUp(error);
    }
  }

  private static void giveUp(Throwable error) {
    if (error.getCause() instanceof OutOfMemoryError) {
      throw (OutOfMemoryError) error.getCause();
    }
    error.printStackTrace();
    System.exit(BROKEN_CACHE);
  }

  private static ArrayList<String> check(String caption, ArrayList<ArrayList<String>> tuples) throws Exception {
    return new ArrayList<String>(Arrays.asList(CHECK, sha256(caption + "\n" + tuples)));
  }

  private static String sha256(String text) throws Exception {
    StringBuilder digits = new StringBuilder();
    for (byte one : MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8))) {
      digits.append(String.format("%02x", one));
    }
    return digits.toString();
  }

  private static List<String> lines(String path) throws Exception {
    String text = new String(Files.readAllBytes(Paths.get(path)), StandardCharsets.UTF_8);
    return Arrays.asList(text.split("\n", -1));
  }

  // SPICE's constructors and methods, found by their name and number of arguments.

  private static Object make(String name, Object... arguments) throws Exception {
    for (Constructor<?> one : Class.forName("edu.anu.spice." + name).getDeclaredConstructors()) {
      if (one.getParameterTypes().length == arguments.length) {
        return open(one).newInstance(arguments);
      }
    }
    throw new NoSuchMethodException(name);
  }

  private static Object call(Object object, String name, Object... arguments) throws Exception {
    for (Method one : object.getClass().getDeclaredMethods()) {
      if (one.getName().equals(name) && one.getParameterTypes().length == arguments.length) {
        return open(one).invoke(object, arguments);
      }
    }
    throw new NoSuchMethodException(name);
  }

  private static Object get(Object object, String name) throws Exception {
    Field field = object.getClass().getDeclaredField(name);
    return open(field).get(object);
  }

  private static <T extends AccessibleObject> T open(T member) {
    member.setAccessible(true);
    return member;
  }

  @SuppressWarnings("unchecked")
  private static <T> T cast(Object object) {
    return (T) object;
  }
}
