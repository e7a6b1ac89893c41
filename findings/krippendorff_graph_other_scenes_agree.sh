#!/usr/bin/env bash
# krippendorff-graph 0.2.0: annotators whose scene graphs share no word agree perfectly by its graph edit distance.
#
# Scene graphs are triples, as (car, left of, tree). "Normalized Graph Edit Distance" is among the distances for them. It
# calls networkx without a function that compares nodes or edges, and networkx then takes all of them for equal: only the
# shape of the graph counts. Two graphs with two relations in a row are the same graph, whatever they speak of, and "car left
# of tree" is "tree left of car". The README says only how the distance is normalised.
# Seen for two annotators and three views, no word in common: alpha 1.00; by the exact ("nominal") distance 0.00.
# What to do: give networkx node_match and edge_match, or use the Jaccard distance of the triples.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check krippendorff-graph==0.2.0 networkx==3.6.1 numpy==2.4.6 pandas==3.1.1 tqdm==4.70.1
venv/bin/python -W ignore - 2>log <<'PY' || { tail -3 log >&2; exit 1; }
import sys
from importlib.metadata import version

import networkx as nx
import pandas as pd
from krippendorff_graph import compute_alpha, compute_distance_matrix, graph_edit_distance, nominal_metric

one = [
    {("car", "left of", "tree"), ("tree", "behind", "house")},
    {("lamp", "above", "table")},
    {("dog", "near", "bench"), ("dog", "near", "bin")},
]
two = [
    {("window", "right of", "door"), ("door", "below", "roof")},
    {("sign", "in front of", "shop")},
    {("cat", "on", "wall"), ("cat", "under", "sky")},
]
table = pd.DataFrame({"annotator": [1] * 3 + [2] * 3, "graph": one + two})
alpha = {}
for metric in (graph_edit_distance, nominal_metric):
    distances = compute_distance_matrix(table, "graph", metric, save_path="distances.npy", graph_type=nx.MultiDiGraph)
    alpha[metric] = compute_alpha([one, two], distances)
turned = graph_edit_distance([("car", "left of", "tree")], [("tree", "left of", "car")])
print(f"krippendorff-graph {version('krippendorff-graph')}, networkx {version('networkx')}: alpha by graph edit distance {alpha[graph_edit_distance]:.2f}, by exact match {alpha[nominal_metric]:.2f}; car left of tree to tree left of car: {turned}")
if alpha[graph_edit_distance] != 1 or alpha[nominal_metric] > 0 or turned != 0:
    sys.exit("krippendorff-graph no longer does this")
PY
