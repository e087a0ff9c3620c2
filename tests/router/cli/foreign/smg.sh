smg launch --service-discovery --selector app=sglang role=worker \
  --service-discovery-port 30000 --service-discovery-namespace llm --policy=least_load
