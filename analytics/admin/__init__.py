"""What the admin shows of roll-ups: the dashboard, schedules of reports, and pricing what was used before its price."""

from analytics.admin.repricing import RepricingAdmin
from analytics.reports.admin import ReportDeliveryAdmin, ReportScheduleAdmin

__all__ = ["ReportDeliveryAdmin", "ReportScheduleAdmin", "RepricingAdmin"]
