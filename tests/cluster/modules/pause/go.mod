module penstock.dev/tests/cluster/modules/pause

go 1.26.0
