"""routing: token counts in, a provider's answer out. Catalog and prices, the planner, forwarding, receipts. Knows no text."""

from routing.catalog import Catalog, Provider
from routing.forwarding import Router
from routing.offers import Offer, Usage, price
from routing.planner import Plan, plan

__all__ = ["Catalog", "Offer", "Plan", "Provider", "Router", "Usage", "plan", "price"]
